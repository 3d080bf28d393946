// The page: photos are added, pass through the engine one by one, and are shown.
import { setUpCamera } from "./camera.js";
import { saveCsv, saveJson, savePicture } from "./downloads.js";
import { announce, el } from "./dom.js";
import { EngineError } from "./engine-error.js";
import { openFoldsInPrint, render, renderBar, renderFolds, renderProgress, toggleFolds } from "./results.js";
import { isAnimated, still } from "./still.js";
import { stored } from "./storage.js";
import { upright } from "./upright.js";
import { count, list, megabytes } from "./words.js";

const $ = (id) => document.getElementById(id);
const state = { photos: [], current: null, working: false };
// Photos added before the engine was ready.
const early = [];
let engine = null, about = null;
// The server's description, kept while its page analyses on this device.
let server = null;
// A switch of engines in progress: no photo is processed before it has finished.
let switching = null;

// The state of the box "Analyse on this device": a promise about photos outlives a reload.
const ON_DEVICE = "facewise-on-device";

// A busy server is retried automatically this often, if its Retry-After is short enough.
const MOST_PAUSES = 3, LONGEST_PAUSE_S = 20;

/** Show a problem that belongs to no photo, with a button to try again where that makes sense. */
function trouble(title, detail, again = null) {
  $("trouble")?.remove();
  $("notice").before(el("div", { id: "trouble", class: "problem", role: "alert" }, [
    el("h2", {}, [title]), el("p", {}, [detail]),
    again && el("button", { onclick: () => { $("trouble").remove(); again(); } }, ["Try again"]),
  ]));
}

const actions = { choose, remove, retry };
function draw() {
  render(state, about, actions);
  renderCurl();
}

function choose(photo) {
  state.current = photo;
  draw();
  $("strip").querySelector('[aria-current="true"]')?.focus();
}

/** The picture as the server sees it, if the browser would show it unrotated or animated; else the file. */
async function seen(file, isMoving) {
  const canvas = (await upright(file)) ?? (isMoving ? await still(file) : null);
  return (canvas && (await new Promise((resolve) => canvas.toBlob(resolve, "image/webp", 0.95)))) ?? file;
}

/** The picture as an element, or null if this browser cannot show it. */
async function preview(url, name) {
  // If dragged from here, it could be dropped as a new photo, or as something that is not a file.
  const image = el("img", { src: url, alt: `The photo ${name}`, draggable: "false" });
  try {
    await image.decode();
    return image;
  } catch {
    return null;
  }
}

async function add(files) {
  if (!files.length) return;
  $("trouble")?.remove();
  if (!about) {
    early.push(...files);
    if (engine && !$("key-form").hidden) {
      $("key-waiting").hidden = false;
      announce($("key-waiting").textContent);
      $("key").focus();
      return;
    }
    if (!$("loading").hasChildNodes()) $("loading").replaceChildren(el("p", { class: "hint" }, ["One moment: getting ready."]));
    announce("One moment: getting ready.");
    if (failed) start();
    return;
  }
  // Remove bidi marks, which would reverse the page's own text after the name.
  const names = [...files].map((file) => file.name.replaceAll(/\p{Bidi_Control}/gu, "") || "pasted.png");
  announce(`${names.length > 1 ? `${names.length} photos` : names[0]} added. Faces are looked for.`);
  const added = await Promise.all([...files].map(async (file, index) => {
    const moves = await isAnimated(file);
    const url = URL.createObjectURL(await seen(file, moves));
    return { file, name: names[index], url, image: await preview(url, names[index]), isAnimated: moves, scale: 1, answer: null, error: null, waiting: true, progress: null, pauses: 0, pausedBy: null, stop: new AbortController() };
  }));
  state.photos.push(...added);
  state.current = added[0];
  draw();
  // On a phone the results fill the screen: the photo, with the first card below it.
  $("results").scrollIntoView({ block: matchMedia("(max-width: 40rem)").matches ? "start" : "nearest" });
  work();
}

function refuse(photo) {
  const most = about.limits.max_bytes;
  if (photo.file.size <= most) return null;
  const [size, limit] = [photo.file.size, most].map(megabytes);
  return {
    code: "image_too_large", title: "The picture is too large", isFinal: true,
    detail: `It has ${size === limit ? "a little more than " : ""}${size}; at most ${limit} are read here. Save it smaller: 2,000 pixels on the longer side are plenty.`,
  };
}

/** Wait the given number of seconds, or until the photo is removed. */
const pause = (seconds, signal) => new Promise((resolve) => {
  setTimeout(resolve, seconds * 1000);
  signal.addEventListener("abort", resolve);
});

/** Folders, and files that were moved or changed after they were chosen, cannot be read. */
const isReadable = (file) => file.slice(0, 1).arrayBuffer().then(() => true, () => false);

async function analyze(photo) {
  Object.assign(photo, { waiting: false, pausedBy: null });
  photo.error = refuse(photo);
  if (photo.error) return;
  if (photo === state.current) draw();
  try {
    photo.answer = await engine.analyze(photo.file, {
      years: true,
      signal: photo.stop.signal,
      onProgress: (part) => {
        photo.progress = part;
        if (photo === state.current) renderProgress(photo);
      },
    });
    if (photo.image) photo.scale = photo.image.naturalWidth / photo.answer.width_px;
  } catch (failure) {
    if (failure.code === "aborted") {
      // Unless it was removed, its turn comes again on the other engine.
      Object.assign(photo, { waiting: true, progress: null });
      if (photo === state.current) draw();
      return;
    }
    const seconds = failure.retryAfterSeconds;
    if (seconds && seconds <= LONGEST_PAUSE_S && photo.pauses < MOST_PAUSES) {
      Object.assign(photo, { waiting: true, progress: null, pauses: photo.pauses + 1, pausedBy: failure.title });
      if (photo === state.current) draw();
      if (photo.pauses === 1) announce(`${failure.title}. ${photo.name} is tried again by itself.`);
      await pause(seconds, photo.stop.signal);
      return;
    }
    const error = failure.code === "network" && !(await isReadable(photo.file))
      ? { code: "image_unreadable", title: "This cannot be read", detail: "It is a folder, or the file was moved or changed in the meantime: choose the picture itself again." } : failure;
    photo.error = { title: error.title ?? "Something went wrong", detail: error.detail ?? "Try again.", code: error.code };
    photo.error.isFinal = /^(image_|not_an_image|unsupported_)/.test(error.code ?? "");
    if (error.code === "unauthorized") askForKey();
  }
}

/** The first waiting photo; the list may change while engines are switched. */
async function next() {
  heedOtherTabs();
  await switching;
  return state.photos.find((photo) => photo.waiting);
}

async function work() {
  if (state.working) return;
  state.working = true;
  for (let photo; (photo = await next()); ) {
    await analyze(photo);
    if (photo.waiting || !state.photos.includes(photo)) continue;
    announce(photo.error ? `${photo.name}: ${photo.error.title}. ${photo.error.detail}` : `${count(photo.answer.faces.length)} found in ${photo.name}.`);
    // A photo in the background updates only its thumbnail: what the visitor is reading stays.
    if (photo === state.current) draw();
    else renderBar(state, actions);
  }
  state.working = false;
}

function retry(photos) {
  for (const photo of photos) Object.assign(photo, { error: null, waiting: true, progress: null, pauses: 0 });
  if (engine === nowhere) changeEngine();
  draw();
  $("message").focus();
  work();
}

function forget(photo) {
  photo.stop.abort();
  URL.revokeObjectURL(photo.url);
}

/** Remove a photo; the next one takes its place. Focus stays on the button or in the strip, while it exists. */
function remove(photo) {
  const index = state.photos.indexOf(photo), inStrip = $("strip").contains(document.activeElement);
  forget(photo);
  state.photos.splice(index, 1);
  if (photo === state.current) {
    state.current = state.photos[index] ?? state.photos.at(-1) ?? null;
    draw();
  } else renderBar(state, actions);
  const left = state.photos.length;
  announce(`${photo.name} removed. ${left > 1 ? `${left} photos are left.` : left ? "1 photo is left." : "No photo is left."}`);
  if (!left) $("browse").focus();
  else if (inStrip && left === 1) $("remove").focus();
}

function clear() {
  state.photos.forEach(forget);
  Object.assign(state, { photos: [], current: null });
  draw();
  announce("All photos removed.");
  $("browse").focus();
}

function refuseKey() {
  $("key").setAttribute("aria-invalid", "true");
  $("key-hint").textContent = "The server does not know this key: check it, or ask the operator.";
  announce($("key-hint").textContent);
}

function acceptKey() {
  const form = $("key-form"), hadFocus = form.contains(document.activeElement);
  if (form.hidden) return;
  $("key").removeAttribute("aria-invalid");
  $("key-waiting").hidden = form.hidden = true;
  announce("Key accepted.");
  if (hadFocus) $("browse").focus();
}

function askForKey() {
  $("key-form").hidden = false;
  $("key").focus();
}

/** A picture that is in no file, of which a command could be made: from the camera or the clipboard. */
const unsaved = (file) => Object.assign(file, { isUnsaved: true });

function renderCurl() {
  $("copy-curl").hidden = !about.curl || Boolean(state.current?.file.isUnsaved);
}

async function copyCurl() {
  const button = $("copy-curl"), text = about.curl(state.current.name, state.current.file.address);
  try {
    await navigator.clipboard.writeText(text);
    // Keep the width, so that the buttons beside it don't move.
    button.style.minWidth = `${button.getBoundingClientRect().width}px`;
    button.textContent = "Copied";
    announce("The curl command is on the clipboard.");
  } catch {
    // Without permission (or over plain HTTP) the command is shown, to be copied by hand.
    $("message").querySelector("pre")?.remove();
    announce("The curl command is shown above the results, to be copied by hand.");
    $("message").prepend(el("pre", { class: "calm", tabindex: "0" }, [text]));
  }
  setTimeout(() => { button.textContent = "Copy as curl"; }, 2000);
}

function wire() {
  const drop = $("drop"), input = $("files");
  $("browse").addEventListener("click", () => input.click());
  input.addEventListener("change", () => { add(input.files); input.value = ""; });
  for (const event of ["dragenter", "dragover"]) {
    document.addEventListener(event, (drag) => {
      drag.preventDefault();
      drop.classList.toggle("over", drag.dataTransfer.types.includes("Files"));
    });
  }
  document.addEventListener("dragleave", (drag) => { if (!drag.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (drag) => {
    drag.preventDefault();
    drop.classList.remove("over");
    if (drag.dataTransfer.files.length) add(drag.dataTransfer.files);
    else trouble("That was not a file", "Save the picture first, then drop or choose the file.");
  });
  document.addEventListener("paste", (event) => add([...event.clipboardData.files].map(unsaved)));
  $("examples").addEventListener("click", (event) => {
    const name = event.target.closest("button")?.dataset.example;
    if (name) addExample(name);
  });
  $("save-json").addEventListener("click", () => saveJson(state.photos));
  $("save-csv").addEventListener("click", () => saveCsv(state.photos));
  $("save-picture").addEventListener("click", async () => {
    if (await savePicture(state.current)) return;
    trouble("The picture could not be made", "It is too large for this browser: scale it down and choose it again. JSON and CSV can still be downloaded.");
  });
  $("copy-curl").addEventListener("click", copyCurl);
  $("remove").addEventListener("click", () => remove(state.current));
  $("clear").addEventListener("click", clear);
  $("open-all").addEventListener("click", toggleFolds);
  $("cards").addEventListener("toggle", renderFolds, true);
  openFoldsInPrint();
  $("on-device").addEventListener("change", changeEngine);
  window.addEventListener("storage", heedOtherTabs);
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    engine.setKey($("key").value);
    start();
  });
}

async function addExample(name) {
  try {
    const answer = await fetch(`static/examples/${name}`);
    if (!answer.ok) throw new Error(String(answer.status));
    const file = new File([await answer.blob()], name, { type: "image/jpeg" });
    const hadFocus = $("examples").contains(document.activeElement);
    add([Object.assign(file, { address: answer.url })]);
    if (hadFocus) $("browse").focus();
  } catch {
    trouble("The example could not be fetched", "Check that you are online and facewise still running, then try again.", () => addExample(name));
  }
}

/** Names of the data sets that the model itself was trained on, without their licences. */
const dataSets = (model) => model.data.filter((line) => !/^(pretrained start:|its teacher's) /.test(line)).map((line) => line.split(" (")[0]);

/** What was measured on test faces, in a sentence. */
function measured(model, coverage) {
  const row = model.figures.coverage?.[String(coverage)]?.intervals;
  if (!row) return "Whether they do was not measured on faces with an exact age.";
  const percent = (share) => (share * 100).toFixed(1);
  return `On ${row.n.toLocaleString("en")} test faces with an exact age (UTKFace), they held it for ${percent(row.coverage)}\u00a0% (${percent(row.low)} to ${percent(row.high)}\u00a0%, allowing for chance).`;
}

function describePage() {
  const names = about.attributes;
  $("lede").textContent = `Add a photo. Each face found in it gets its apparent ${list(names)}, with how sure the model is, or the reason why it can't tell.`;
  $("limits").textContent = `${list(about.formats, "or")}, up to ${megabytes(about.limits.max_bytes)}`;
  $("data").textContent = about.data.length ? ` trained on ${list(about.data)}` : "";
  $("privacy").textContent = about.privacy;
  renderCurl();
  $("model").textContent = ` · ${about.model.name} ${about.model.version}`;
  for (const id of ["card-link", "card-link-foot"]) $(id).href = about.cardUrl;
}

/** Show how much of the models has loaded; null hides the bar. */
function renderLoading(part) {
  if (part === null) $("loading").replaceChildren();
  else if ($("loading-bar")) $("loading-bar").value = part;
  else {
    $("loading").replaceChildren(el("div", { class: "progress" }, [
      el("label", { for: "loading-bar" }, ["Loading the models, once"]), el("progress", { id: "loading-bar", max: 1, value: part }),
    ]));
  }
}

function use(description) {
  about = { ...description, data: dataSets(description.model), measured: measured(description.model, description.coverage) };
  describePage();
}

let failed = false;
async function start() {
  failed = false;
  try {
    use(await engine.describe({ onProgress: renderLoading }));
  } catch (error) {
    failed = error.code !== "unauthorized";
    if (failed) trouble(error.title, error.detail, start);
    else {
      askForKey();
      if ($("key").value) refuseKey();
    }
    return;
  } finally {
    renderLoading(null);
  }
  acceptKey();
  server = about;
  $("on-device-row").hidden = !about.onDevice;
  heedOtherTabs();
  if (!document.documentElement.dataset.ready) setUpCamera({ current, onPicture: (file) => add([unsaved(file)]) });
  document.documentElement.dataset.ready = "true";
  add(early.splice(0));
  const refused = state.photos.filter((photo) => photo.error?.code === "unauthorized");
  if (refused.length) retry(refused);
}

const engines = {
  server: () => import("./engine-server.js"),
  device: () => import("./engine-device.js"),
};

/** Replaces the server while the box is ticked and the models are not loaded: no photo is sent. */
const nowhere = {
  analyze: async () => {
    throw new EngineError("kept_back", "Not analysed, and not sent", "The models for this device could not be loaded. Try again, or untick the box above to send photos to the server.");
  },
};

/** Use another engine, which may read what the last one could not. */
function goOnWith(module, description) {
  engine = module;
  use(description);
  for (const { error } of state.photos) if (error) error.isFinal = false;
  if (state.current?.error) draw();
}

function changeEngine() {
  switching = switchEngine();
}

/** Tick the box if it was ticked in another tab, or before a reload. A tab only unticks its own: photos may wait in others. */
function heedOtherTabs() {
  const box = $("on-device");
  // The static page has no server, so it has no box either.
  if (server?.onDevice === undefined || box.checked || stored("localStorage", (kept) => kept.getItem(ON_DEVICE)) === null) return;
  // Even if the server no longer offers it, a ticked box still keeps photos from the server.
  $("on-device-row").hidden = false;
  box.checked = true;
  // A live view sends photos, too.
  $("camera").close();
  changeEngine();
}

/** What the camera's next picture goes to. */
function current() {
  heedOtherTabs();
  return { engine, about };
}

/** On a server's page: analyse on this device from now on, or on the server again. */
async function switchEngine() {
  const box = $("on-device");
  $("trouble")?.remove();
  stored("localStorage", (kept) => (box.checked ? kept.setItem(ON_DEVICE, "yes") : kept.removeItem(ON_DEVICE)));
  if (!box.checked) {
    const module = await engines.server();
    // Ticked again in the meantime, by another tab.
    if (box.checked) return;
    goOnWith(module, server);
    announce("Photos are sent to the server again.");
    return;
  }
  engine = nowhere;
  // A photo that is being sent is one, too.
  for (const photo of state.photos) {
    photo.stop.abort();
    photo.stop = new AbortController();
  }
  $("privacy").textContent = "No photo is sent.";
  // Only the server needs a key.
  $("key-form").hidden = true;
  // Camera frames are photos too.
  box.disabled = $("camera-open").disabled = true;
  try {
    const device = await engines.device();
    goOnWith(device, await device.describe({ onProgress: renderLoading, within: server }));
    announce("Photos stay on this device from now on.");
    const kept = state.photos.filter((photo) => ["kept_back", "unauthorized"].includes(photo.error?.code));
    if (kept.length) retry(kept);
  } catch (error) {
    trouble(error.title ?? "The models could not be loaded", `${error.detail ?? "Check that you are online, then try again."} Until then photos are neither analysed nor sent.`, changeEngine);
  } finally {
    box.disabled = $("camera-open").disabled = false;
    renderLoading(null);
  }
}

wire();
engine = await engines[document.documentElement.dataset.engine]();
await start();
