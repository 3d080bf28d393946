// Keep the page for use without a network, where the browser can.
navigator.serviceWorker?.register("sw.js").catch(() => {});
