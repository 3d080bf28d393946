// Keeps the page for offline use. Completed by scripts/make_page.py: the version is a hash of all
// files, so that a new build gets a new cache, which is fetched completely before it takes over.
const VERSION = "__VERSION__";
const FILES = __FILES__;
const PREFIX = `facewise ${self.registration.scope} `;
const CACHE = PREFIX + VERSION;

self.addEventListener("install", (event) => {
  // "no-cache" revalidates what the browser has with the host, but loads nothing twice.
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES.map((path) => new Request(path, { cache: "no-cache" })))));
});

// Otherwise a new version waits until the last tab with the old one is closed.
self.addEventListener("message", (event) => {
  if (event.data === "take over") self.skipWaiting();
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    caches.keys()
      .then((names) => Promise.all(names.filter((name) => name.startsWith(PREFIX) && name !== CACHE).map((name) => caches.delete(name))))
      .then(() => self.clients.claim()),
  );
});

/** Some hosts redirect card.html to card; browsers refuse to open a page from a redirected response. */
const direct = (kept) => kept?.redirected ? new Response(kept.body, { status: kept.status, statusText: kept.statusText, headers: kept.headers }) : kept;

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  // The page needs no other origin, and on hosts that send no headers this is the only policy that
  // its workers are under.
  if (url.origin !== self.location.origin) {
    if (url.protocol !== "blob:" && url.protocol !== "data:") event.respondWith(Response.error());
    return;
  }
  // "reload" fetches a file again: the page found its cached copy damaged.
  if (event.request.method !== "GET" || event.request.cache === "reload") return;
  event.respondWith(
    caches.open(CACHE).then((cache) => cache.match(event.request, { ignoreSearch: true })).then((kept) => direct(kept) ?? fetch(event.request)),
  );
});
