// The camera: a still picture, or a live view that never shows ethnicity.
import { el } from "./dom.js";
import { Pace, Rate, Tracks } from "./live.js";
import { list } from "./words.js";

const LIVE_SIDE_PX = 640;
/** Boxes older than this without a new answer are removed. */
const STALE_MS = 5000;
/** Between a box and its words. */
const WORDS_GAP_PX = 3;
const $ = (id) => document.getElementById(id);

const REASONS = {
  NotAllowedError: "The browser has no permission to use the camera: allow it in the address bar, then open the camera again.",
  NotFoundError: "No camera was found: connect one, or choose a photo.",
  NotReadableError: "The camera is used by another program: close it there, then open the camera again.",
};

/** @param current returns the current {engine, about}: the engine can change while the page is open. */
export function setUpCamera({ current, onPicture }) {
  const dialog = $("camera"), video = $("video"), viewport = $("viewport");
  let stream = null, live = false, opening = 0, run = 0;
  // Stops the live frame that is being analysed.
  let flight = null;
  // The camera that the visitor switched to, kept for the next picture.
  let chosen = null;
  // Browsers allow cameras only in secure contexts.
  $("camera-hint").hidden = isSecureContext;
  if (!navigator.mediaDevices?.getUserMedia) return;
  $("camera-open").hidden = false;

  function fail(text) {
    $("camera-error").textContent = text;
    $("camera-error").hidden = false;
  }

  // The camera's shape, also when a phone is turned.
  video.addEventListener("resize", () => { viewport.style.aspectRatio = `${video.videoWidth} / ${video.videoHeight}`; });

  const setEnabled = (on) => { $("shoot").disabled = $("go-live").disabled = $("other-camera").disabled = !on; };
  const stop = (media) => media?.getTracks().forEach((track) => track.stop());

  async function open() {
    const mine = ++opening;
    $("camera-error").hidden = true;
    const { about } = current();
    $("live-hint").textContent = `The live view keeps guessing the apparent ${list(about.liveAttributes)} only, smoothed over some frames. ${about.privacy.replace(/^Photos/, "Frames")}`;
    $("go-live").hidden = about.liveAttributes.length === 0;
    $("other-camera").hidden = true;
    dialog.showModal();
    if (await begin(mine)) $("shoot").focus();
  }

  /** Show the chosen camera, or one facing the visitor; returns whether it is still wanted once it runs. */
  async function begin(mine) {
    setEnabled(false);
    try {
      const which = chosen ? { deviceId: { exact: chosen } } : { facingMode: "user" };
      const media = await navigator.mediaDevices.getUserMedia({ video: { ...which, width: { ideal: 1280 } }, audio: false });
      // Permission can arrive after the dialog was closed: the camera must not stay on.
      if (mine !== opening) {
        stop(media);
        return false;
      }
      stream = media;
      const [track] = media.getVideoTracks();
      track.addEventListener("ended", () => {
        setLive(false);
        setEnabled(false);
        fail("The camera was disconnected: connect it again and reopen this window, or choose a photo.");
      });
      // Mirrored for people facing it; a phone's rear camera is not.
      viewport.classList.toggle("mirrored", track.getSettings().facingMode !== "environment");
      video.srcObject = stream;
      await video.play();
      $("other-camera").hidden = (await cameras()).length < 2;
      setEnabled(true);
      return mine === opening;
    } catch (error) {
      if (chosen && error.name === "OverconstrainedError") {
        // It is no longer connected.
        chosen = null;
        return begin(mine);
      }
      if (mine === opening) fail(REASONS[error.name] ?? "The camera could not be started: choose a photo instead.");
      return false;
    }
  }

  const cameras = async () => (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");

  /** Switch to the next camera; the previous one is released first, as phones open one at a time. */
  async function change() {
    const mine = ++opening, wasLive = live;
    setEnabled(false);
    const all = await cameras(), now = chosen ?? stream.getVideoTracks()[0].getSettings().deviceId;
    if (mine !== opening) return;
    chosen = all[(all.findIndex((device) => device.deviceId === now) + 1) % all.length].deviceId;
    setLive(false);
    stop(stream);
    $("camera-error").hidden = true;
    const isShown = await begin(mine);
    if (mine !== opening) return;
    // If a camera cannot be started, the visitor can go on to the next.
    $("other-camera").disabled = false;
    $("other-camera").focus();
    if (isShown && wasLive) setLive(true);
  }

  /** The camera's current picture: a JPEG, or a bitmap for an engine that takes one. */
  async function frame(longest = Infinity, asBitmap = false) {
    const scale = Math.min(1, longest / Math.max(video.videoWidth, video.videoHeight));
    const width = Math.round(video.videoWidth * scale), height = Math.round(video.videoHeight * scale);
    if (asBitmap) return createImageBitmap(video, { resizeWidth: width, resizeHeight: height });
    const canvas = el("canvas", { width, height });
    canvas.getContext("2d").drawImage(video, 0, 0, width, height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
  }

  /** Remove the last frame's boxes, words and rate: they must not look current. */
  function clear() {
    viewport.querySelectorAll(".live-box").forEach((node) => node.remove());
    $("live-text").textContent = $("live-rate").textContent = "";
  }

  /** Draw the boxes over the video, which is letterboxed and may be mirrored. */
  function show(answer, faces) {
    clear();
    const shown = Math.min(viewport.clientWidth / answer.width_px, viewport.clientHeight / answer.height_px);
    const dx = (viewport.clientWidth - answer.width_px * shown) / 2, dy = (viewport.clientHeight - answer.height_px * shown) / 2;
    const isMirrored = viewport.classList.contains("mirrored");
    for (const face of faces) {
      const [left, top, right, bottom] = face.bbox;
      const x = isMirrored ? answer.width_px - right : left;
      const words = el("span", {}, [face.text]);
      // Hidden from screen readers, which have the words below.
      const node = el("div", { class: "live-box", "aria-hidden": "true" }, [words]);
      node.style.left = `${dx + x * shown}px`;
      node.style.top = `${dy + top * shown}px`;
      node.style.width = `${(right - left) * shown}px`;
      node.style.height = `${(bottom - top) * shown}px`;
      viewport.append(node);
      // The words stand above the box, else below it, and on the face only if it leaves no room.
      const room = words.offsetHeight + WORDS_GAP_PX, low = node.offsetTop + node.offsetHeight;
      if (node.offsetTop < room) node.classList.add(low + room <= viewport.clientHeight ? "below" : "inside");
      // Keep the words within the viewport's sides.
      const start = node.offsetLeft + node.clientLeft + words.offsetLeft;
      const within = Math.max(0, Math.min(start, viewport.clientWidth - words.offsetWidth));
      words.style.left = `${words.offsetLeft + within - start}px`;
    }
    $("live-text").textContent = faces.map((face) => face.text).join("; ");
  }

  function setLive(on) {
    live = on;
    flight?.abort();
    $("go-live").setAttribute("aria-pressed", String(on));
    if (!on) clear();
    else loop(++run);
  }

  async function loop(mine) {
    const { engine, about } = current();
    const tracks = new Tracks(), rate = new Rate(), pace = new Pace(about.frameGapMs);
    const options = { attributes: about.liveAttributes, coverage: about.coverage };
    let answered = performance.now();
    while (live && stream && mine === run) {
      const begun = performance.now();
      let next = begun;
      try {
        const picture = await frame(LIVE_SIDE_PX, engine.takesBitmaps);
        // Switched off meanwhile, or changed by another tab: this frame is not sent.
        if (!live || mine !== run || current().engine !== engine) return;
        flight = new AbortController();
        const answer = await engine.analyze(picture, { ...options, signal: flight.signal });
        if (!live || mine !== run) return;
        $("camera-error").hidden = true;
        const faces = tracks.update(answer.faces);
        show(answer, faces);
        answered = performance.now();
        pace.answered();
        const perSecond = rate.tick(answered);
        // Not a live region: one that speaks many times a second helps nobody.
        $("live-rate").textContent = [
          faces.length ? null : "No face in view",
          perSecond === null ? null : `${perSecond.toFixed(perSecond < 10 ? 1 : 0)} frames a second`,
        ].filter(Boolean).join(" · ");
      } catch (error) {
        if (mine !== run || !live) return;
        if (!error.retryAfterSeconds && error.code !== "busy") {
          setLive(false);
          fail(`${error.title ?? "The live view stopped"}. ${error.detail ?? "Try again."}`);
          return;
        }
        pace.refused();
        next = performance.now() + (error.retryAfterSeconds ?? 0) * 1000;
        // A slower view alone is not an error.
        if (Math.max(next, begun + pace.gapMs) > answered + STALE_MS) {
          clear();
          fail(error.detail);
        }
      }
      const wait = Math.max(next, begun + pace.gapMs) - performance.now();
      if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  function close() {
    opening += 1;
    setLive(false);
    stop(stream);
    stream = null;
    video.srcObject = null;
  }

  $("camera-open").addEventListener("click", open);
  $("camera-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", close);
  $("go-live").addEventListener("click", () => setLive(!live));
  $("other-camera").addEventListener("click", change);
  $("shoot").addEventListener("click", async () => {
    const blob = await frame();
    dialog.close();
    onPicture(new File([blob], "camera.jpg", { type: "image/jpeg" }));
  });
}
