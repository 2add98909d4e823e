// Grey values to screen. A radiograph of 7 million pixels is never made into colours as a whole: each frame looks up
// only the pixels of the canvas, from the smallest of the halved copies that still has enough detail.

const OPAQUE = 0xff000000;

// Return the picture after a clockwise turn; without a turn it is the same array.
export function turned(pixels, rows, columns, turn) {
  if (turn === 0) return { pixels, width: columns, height: rows };
  const [width, height] = turn === 180 ? [columns, rows] : [rows, columns];
  const result = new Uint16Array(pixels.length);
  const [start, right, down] = {
    90: [(rows - 1) * columns, -columns, 1],
    180: [rows * columns - 1, -1, -columns],
    270: [columns - 1, columns, -1],
  }[turn];
  for (let v = 0, to = 0; v < height; v++) {
    for (let u = 0, from = start + v * down; u < width; u++, from += right) result[to++] = pixels[from];
  }
  return { pixels: result, width, height };
}

function half({ pixels, width, height }) {
  const [columns, rows] = [Math.max(1, width >> 1), Math.max(1, height >> 1)];
  const result = new Uint16Array(columns * rows);
  const [right, down] = [width > 1 ? 1 : 0, height > 1 ? width : 0];
  for (let y = 0, to = 0; y < rows; y++) {
    for (let x = 0, from = 2 * y * width; x < columns; x++, from += 2) {
      const sum = pixels[from] + pixels[from + right] + pixels[from + down] + pixels[from + right + down];
      result[to++] = (sum + 2) >> 2;
    }
  }
  return { pixels: result, width: columns, height: rows };
}

export class Picture {
  constructor(pixels, rows, columns, turn) {
    this.levels = [turned(pixels, rows, columns, turn)];
  }

  // The number of the copy for a scale (canvas pixels for each pixel). A copy is made when it is first needed.
  level(scale) {
    let number = 0;
    for (let rest = scale; rest <= 0.5 && number < 8; rest *= 2) number++;
    while (this.levels.length <= number) this.levels.push(half(this.levels[this.levels.length - 1]));
    return number;
  }
}

// Fill the table from grey values to canvas pixels for a window (linear, as PS3.3 C.11.2.1.3.2).
export function fillTable(table, centre, width) {
  const [low, factor] = [centre - width / 2, 255 / Math.max(width, 1)];
  for (let value = 0; value < table.length; value++) {
    const grey = Math.min(255, Math.max(0, Math.round((value - low) * factor)));
    table[value] = OPAQUE | (grey << 16) | (grey << 8) | grey;
  }
  return table;
}

// Draw into `out` (Uint32Array of columns x rows). `left`, `top` are the upright place of the first canvas pixel.
export function draw(picture, table, { left, top, scale }, out, columns, rows) {
  const number = picture.level(scale);
  const { pixels, width, height } = picture.levels[number];
  const shrink = 1 / (1 << number);
  const first = new Int32Array(columns);
  const share = new Float32Array(columns);
  let [begin, end] = [columns, 0];
  for (let x = 0; x < columns; x++) {
    const u = (left + x / scale + 0.5) * shrink - 0.5;
    if (u < -0.5 || u > width - 0.5) continue;
    begin = Math.min(begin, x);
    end = x + 1;
    first[x] = Math.min(Math.max(Math.floor(u), 0), Math.max(width - 2, 0));
    share[x] = Math.min(Math.max(u - first[x], 0), 1);
  }
  const next = width > 1 ? 1 : 0;
  for (let y = 0; y < rows; y++) {
    const start = y * columns;
    const v = (top + y / scale + 0.5) * shrink - 0.5;
    if (v < -0.5 || v > height - 0.5 || begin >= end) {
      out.fill(OPAQUE, start, start + columns);
      continue;
    }
    out.fill(OPAQUE, start, start + begin);
    out.fill(OPAQUE, start + end, start + columns);
    const above = Math.min(Math.max(Math.floor(v), 0), Math.max(height - 2, 0));
    const part = Math.min(Math.max(v - above, 0), 1);
    const upper = above * width;
    const lower = height > 1 ? upper + width : upper;
    for (let x = begin; x < end; x++) {
      const at = first[x];
      const a = pixels[upper + at];
      const b = pixels[lower + at];
      const p = a + (pixels[upper + at + next] - a) * share[x];
      const q = b + (pixels[lower + at + next] - b) * share[x];
      out[start + x] = table[(p + (q - p) * part + 0.5) | 0];
    }
  }
}
