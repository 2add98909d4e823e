// Places on a radiograph. "Source" is x, y in pixels of the stored picture; "upright" is the same after the turn that
// brings it upright. Pixel centres are at whole numbers in both, x to the right and y down.

export function upright([x, y], turn, rows, columns) {
  if (turn === 90) return [rows - 1 - y, x];
  if (turn === 180) return [columns - 1 - x, rows - 1 - y];
  if (turn === 270) return [y, columns - 1 - x];
  return [x, y];
}

export function source([u, v], turn, rows, columns) {
  if (turn === 90) return [v, rows - 1 - u];
  if (turn === 180) return [columns - 1 - u, rows - 1 - v];
  if (turn === 270) return [columns - 1 - v, u];
  return [u, v];
}

export const add = ([x, y], [u, v], times = 1) => [x + times * u, y + times * v];

const distance = ([x, y], [u, v]) => Math.hypot(x - u, y - v);

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function inside([x, y], width, height, margin) {
  const along = (value, size) => {
    const middle = (size - 1) / 2;
    return clamp(value, Math.min(margin, middle), Math.max(size - 1 - margin, middle));
  };
  return [along(x, width), along(y, height)];
}

// The mean distance between neighbouring discs; for one disc four times its length.
export function spacing(discs) {
  if (discs.length === 0) return 0;
  if (discs.length === 1) return 4 * distance(...discs[0]);
  let sum = 0;
  for (let at = 1; at < discs.length; at++) sum += distance(discs[at - 1][0], discs[at][0]);
  return sum / (discs.length - 1);
}

// Return the pairs [centre, anterior] of a region's discs, from above, with a guess for each null: in a row with the
// nearest ones, or along the middle of the picture if there are none.
export function withGuesses(pairs, { rows, columns, turn_deg: turn, facing }) {
  const [width, height] = turn % 180 === 0 ? [columns, rows] : [rows, columns];
  const standing = pairs.map((pair) => pair?.map((point) => upright(point, turn, rows, columns)));
  return pairs.map((pair, at) => {
    if (pair) return pair;
    const [centre, anterior] = besideOthers(standing, at) ?? inTheMiddle(at / (pairs.length - 1), width, height, facing);
    const place = inside(centre, width, height, 1.2 * distance(centre, anterior));
    return [place, add(place, add(anterior, centre, -1))].map((point) => source(point, turn, rows, columns));
  });
}

function besideOthers(pairs, at) {
  const away = (number) => Math.abs(number - at);
  const numbers = [...pairs.keys()].filter((number) => pairs[number]).sort((one, other) => away(one) - away(other));
  if (numbers.length === 0) return null;
  const [near, second] = numbers;
  const other = numbers.find((number) => (number - at) * (near - at) < 0) ?? second;
  const step = other === undefined ? downwards(...pairs[near])
    : add([0, 0], add(pairs[other][0], pairs[near][0], -1), 1 / (other - near));
  return pairs[near].map((point) => add(point, step, at - near));
}

function downwards([x, y], [u, v]) {
  const sign = u < x ? 2.2 : -2.2; // about the distance of discs, in lengths of a pair
  return [sign * (v - y), sign * (x - u)];
}

function inTheMiddle(share, width, height, facing) {
  const centre = [width / 2, height * (0.2 + 0.6 * share)];
  return [centre, add(centre, [facing === "right" ? 1 : -1, 0], 0.05 * height)];
}

// The places of the marks of each disc, from its upright centre and anterior point: the same as on all other results.
// Grades stand in front of the spine, above and below the disc's axis; the level's name stands behind the spine.
export function places(discs, width, height) {
  const unit = spacing(discs);
  const forward = discs.reduce((sum, [centre, anterior]) => sum + anterior[0] - centre[0], 0) < 0 ? -1 : 1;
  return discs.map(([centre, anterior]) => {
    const axis = [anterior[0] - centre[0], anterior[1] - centre[1]];
    const length = Math.max(Math.hypot(...axis), 1e-6);
    const side = [axis[1] / length, -axis[0] / length];
    const up = side[1] < 0 ? side : [-side[0], -side[1]];
    const badges = [1, -1].map((sign) => ({
      foot: add(anterior, up, sign * 0.1 * unit),
      place: inside(add(add(anterior, axis, 0.75), up, sign * 0.25 * unit), width, height, 0.2 * unit),
    }));
    const label = inside([centre[0] - 1.1 * forward * unit, centre[1]], width, height, 0.35 * unit);
    return { centre, anterior, label, badges };
  });
}
