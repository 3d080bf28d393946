// Keep the page for offline use, if the browser can.
navigator.serviceWorker?.register("sw.js").catch(() => {});
