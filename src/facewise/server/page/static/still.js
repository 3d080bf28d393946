// Animations: only their first frame is analysed, so only that one is shown. They are recognised by
// their containers, since not all browsers report them.

const text = (bytes, at, length) => String.fromCharCode(...bytes.subarray(at, at + length));
const read = async (blob, from, to) => new Uint8Array(await blob.slice(from, to).arrayBuffer());

/** Whether a GIF has a second picture, found by walking its blocks: its header doesn't say. */
function hasTwo(gif) {
  const table = (flags) => (flags & 0x80 ? 3 << ((flags & 7) + 1) : 0);
  let at = 13 + table(gif[10]), pictures = 0;
  while (at < gif.length) {
    const kind = gif[at];
    if (kind === 0x2c) {
      pictures += 1;
      if (pictures > 1) return true;
      at += 11 + table(gif[at + 9]);
    } else if (kind === 0x21) at += 2;
    else return false;
    while (gif[at]) at += gif[at] + 1;
    at += 1;
  }
  return false;
}

/** Whether a PNG declares frames, which it does before its first pixels. */
async function isAnimatedPng(blob) {
  for (let at = 8; at + 8 < blob.size; ) {
    const head = await read(blob, at, at + 8);
    const kind = text(head, 4, 4);
    if (kind === "acTL" || kind === "IDAT") return kind === "acTL";
    at += 12 + new DataView(head.buffer).getUint32(0);
  }
  return false;
}

/** Whether the file is an animation: GIF, WebP, AVIF or PNG. */
export async function isAnimated(blob) {
  try {
    const head = await read(blob, 0, 32);
    if (text(head, 0, 3) === "GIF") return hasTwo(await read(blob, 0));
    if (text(head, 0, 4) === "RIFF" && text(head, 8, 8) === "WEBPVP8X") return (head[20] & 2) !== 0;
    if (text(head, 4, 8) === "ftypavis") return true;
    return text(head, 1, 3) === "PNG" && (await isAnimatedPng(blob));
  } catch {
    // Not readable: the next reader reports it.
    return false;
  }
}

/** A canvas with the first frame, or null if the browser cannot read it. */
export async function still(blob) {
  try {
    const bitmap = await createImageBitmap(blob);
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    return canvas;
  } catch {
    return null;
  }
}
