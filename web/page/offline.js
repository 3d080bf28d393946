// Keeps the page for offline use, if the browser can, and says when a newer version has been kept.
import { announce, el } from "./dom.js";

const registration = await navigator.serviceWorker?.register("sw.js").catch(() => null);

/** Photos may be on the page: the visitor decides when it is replaced. */
function reload() {
  navigator.serviceWorker.addEventListener("controllerchange", () => location.reload());
  // Another tab may have put it in place already.
  if (registration.waiting) registration.waiting.postMessage("take over");
  else location.reload();
}

function offer() {
  // Without an active worker, this one is the first: it replaces nothing.
  if (!registration.waiting || !registration.active || document.querySelector("#update")) return;
  const text = "A newer version is ready.";
  document.querySelector("main").append(el("div", { id: "update", class: "panel row update" }, [
    el("p", {}, [text]), el("button", { class: "primary", onclick: reload }, ["Reload"]),
  ]));
  announce(text);
}

const watch = () => registration.installing?.addEventListener("statechange", offer);

if (registration) {
  offer();
  watch();
  registration.addEventListener("updatefound", watch);
}
