// WebP photos lying on their side: browsers differ in whether they apply a WebP's EXIF orientation,
// while the server always does. So it is read and reset here, and the picture rotated.

const RIFF = 0x52494646, WEBP = 0x57454250, EXIF = 0x45584946, EXIF_PREFIX = 0x45786966, ORIENTATION = 0x0112;

/** Offset, value and byte order of a WebP file's orientation; null if it has none. */
function orientation(view) {
  for (let at = 12; at + 8 <= view.byteLength; ) {
    const size = view.getUint32(at + 4, true);
    if (view.getUint32(at) === EXIF) return inTiff(view, at + 8);
    at += 8 + size + (size % 2);
  }
  return null;
}

function inTiff(view, start) {
  if (view.getUint32(start) === EXIF_PREFIX) start += 6;
  const isLittle = view.getUint16(start) === 0x4949;
  const directory = start + view.getUint32(start + 4, isLittle);
  for (let i = 0; i < view.getUint16(directory, isLittle); i++) {
    const entry = directory + 2 + 12 * i;
    if (view.getUint16(entry, isLittle) === ORIENTATION) return { at: entry + 8, value: view.getUint16(entry + 8, isLittle), isLittle };
  }
  return null;
}

/** Matrices that turn a picture of this size upright, for the EXIF orientations 2 to 8. */
const turns = (width, height) => ({
  2: [-1, 0, 0, 1, width, 0],
  3: [-1, 0, 0, -1, width, height],
  4: [1, 0, 0, -1, 0, height],
  5: [0, 1, 1, 0, 0, 0],
  6: [0, 1, -1, 0, height, 0],
  7: [0, -1, -1, 0, height, width],
  8: [0, -1, 1, 0, 0, width],
});

/** A canvas with the picture turned upright, or null if the browser's own handling suffices. */
export async function upright(blob, options = {}) {
  try {
    const head = new DataView(await blob.slice(0, 12).arrayBuffer());
    if (head.getUint32(0) !== RIFF || head.getUint32(8) !== WEBP) return null;
    const view = new DataView(await blob.arrayBuffer());
    const found = orientation(view);
    if (!found || !(found.value in turns(0, 0))) return null;
    view.setUint16(found.at, 1, found.isLittle);
    const bitmap = await createImageBitmap(new Blob([view]), options);
    const { width, height } = bitmap;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = found.value < 5 ? [width, height] : [height, width];
    const pen = canvas.getContext("2d");
    pen.setTransform(...turns(width, height)[found.value]);
    pen.drawImage(bitmap, 0, 0);
    bitmap.close();
    return canvas;
  } catch {
    // Damaged or not readable: the next reader reports it.
    return null;
  }
}
