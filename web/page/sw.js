// Keeps the page for use without a network. Written out by scripts/make_page.py: the version is a
// hash of all files, so that a new build is a new cache, fetched whole before it takes over.
const VERSION = "__VERSION__";
const FILES = __FILES__;
const PREFIX = `facewise ${self.registration.scope} `;
const CACHE = PREFIX + VERSION;

self.addEventListener("install", (event) => {
  // "no-cache" asks the host whether what the browser holds is still right, but loads nothing twice.
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(FILES.map((path) => new Request(path, { cache: "no-cache" })))));
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    caches.keys()
      .then((names) => Promise.all(names.filter((name) => name.startsWith(PREFIX) && name !== CACHE).map((name) => caches.delete(name))))
      .then(() => self.clients.claim()),
  );
});

/** Some hosts redirect card.html to card; browsers refuse to open a page from an answer that says so. */
const direct = (kept) => kept?.redirected ? new Response(kept.body, { status: kept.status, statusText: kept.statusText, headers: kept.headers }) : kept;

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  // The page has no business elsewhere, and on hosts that send no headers its workers are under no
  // policy but this one.
  if (url.origin !== self.location.origin) {
    if (url.protocol !== "blob:" && url.protocol !== "data:") event.respondWith(Response.error());
    return;
  }
  // "reload" asks for a file anew: the page found the one that was kept to be damaged.
  if (event.request.method !== "GET" || event.request.cache === "reload") return;
  event.respondWith(
    caches.open(CACHE).then((cache) => cache.match(event.request, { ignoreSearch: true })).then((kept) => direct(kept) ?? fetch(event.request)),
  );
});
