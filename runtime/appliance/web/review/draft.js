// A reader's changes of one revision before they are saved. Nothing is sent or kept from here.

import { withGuesses } from "/review/geometry.js";

const MERGE_MS = 1000; // changes of the same thing within this time are one step to undo, as is a drag

export const PARTS = ["centre", "anterior"];

export const LEVELS = {
  cervical: ["C2/C3", "C3/C4", "C4/C5", "C5/C6", "C6/C7", "C7/T1"],
  lumbar: ["T12/L1", "L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1"],
};

export const REGIONS = Object.keys(LEVELS);

// Whether a reader could not read a region. The service takes its points when one says that it can be read.
export const isRefused = (region) => region.reject?.code === "reader-unreadable";

const NOTHING = { points: {}, grades: {}, readable: [] };

// Return all discs of a region that has a radiograph, from above. `pair` is the centre and the anterior point; a disc
// that was not found has a guess there, but for a region whose points cannot be moved.
function discsOf(report, name, isFixed) {
  const region = report.regions[name];
  if (!region.radiograph) return [];
  const discs = LEVELS[name].map((level) =>
    [...region.discs, ...region.untrusted_points].find((disc) => disc.level === level) ?? { level, confidence: 0 });
  const pairs = withGuesses(discs.map((disc) =>
    (disc.confidence > 0 ? [disc.centre_px, disc.anterior_px] : null)), region.radiograph);
  return discs.map((disc, at) => ({ corners: [], ...disc, pair: pairs[at], isFound: disc.confidence > 0 }))
    .filter((disc) => disc.isFound || !isFixed);
}

// Return the points without those of one disc, and without a region that has none.
function without(points, region, level) {
  const { [level]: _disc, ...levels } = points[region] ?? {};
  const { [region]: _levels, ...others } = points;
  return Object.keys(levels).length ? { ...others, [region]: levels } : others;
}

export class Draft {
  constructor(report) {
    this.report = report;
    this.steps = [NOTHING];
    this.at = 0;
    this.last = null;
  }

  get now() {
    return this.steps[this.at];
  }

  get isEmpty() {
    return Object.values(this.now).every((part) => Object.keys(part).length === 0);
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.steps.length - 1;
  }

  // Whether a region cannot be read, and the reader has not said otherwise.
  isRefused(region) {
    return isRefused(this.report.regions[region]) && !this.now.readable.includes(region);
  }

  _discs(region) {
    return discsOf(this.report, region, this.isRefused(region));
  }

  // Points are kept by region and level, [centre, anterior], as the service takes them. Of a disc that was not found
  // each is null until the reader places it.
  movePoint(region, level, part, place, ended = true) {
    const disc = this._discs(region).find((one) => one.level === level);
    const before = disc.isFound ? disc.pair : [null, null];
    const pair = [...(this.now.points[region]?.[level] ?? before)];
    pair[part] = place.map((value) => Math.round(value * 1000) / 1000);
    const points = String(pair) === String(before) ? without(this.now.points, region, level)
      : { ...this.now.points, [region]: { ...this.now.points[region], [level]: pair } };
    this._step(`${region} ${level} ${part}`, { ...this.now, points }, ended);
  }

  setGrade(site, grade) {
    const grades = { ...this.now.grades, [site]: grade };
    const { disc, region, corner } = this.find(site);
    const moved = this.now.points[region]?.[disc.level];
    if (!moved && corner.grade === grade && (grade !== null || corner.grade_from === "reader")) delete grades[site];
    this._step(site, { ...this.now, grades });
  }

  // Say that the corners of a disc that was not found cannot be read.
  refuse(region, level) {
    const { corners } = this.report.regions[region].discs.find((disc) => disc.level === level);
    const grades = Object.fromEntries(corners.map(({ site }) => [site, null]));
    this._step(null, {
      ...this.now, points: without(this.now.points, region, level), grades: { ...this.now.grades, ...grades },
    });
  }

  // Say that a region can be read, which a reader could not read.
  restore(region) {
    this._step(null, { ...this.now, readable: [...this.now.readable, region] });
  }

  // Take back everything that was changed at one corner or one point pair, or that a region can be read.
  drop({ kind, site, region, level }) {
    const { points, grades, readable } = structuredClone(this.now);
    if (kind === "region") {
      delete points[region];
      this._step(null, { points, grades, readable: readable.filter((name) => name !== region) });
      return;
    }
    if (site) delete grades[site];
    this._step(null, { points: level ? without(points, region, level) : points, grades, readable });
  }

  discard() {
    this._step(null, NOTHING);
  }

  undo() {
    if (this.canUndo) this.at--;
    this.last = null;
  }

  redo() {
    if (this.canRedo) this.at++;
    this.last = null;
  }

  _step(thing, state, ended = true) {
    const [now, same] = [performance.now(), thing !== null && this.last?.thing === thing];
    const merge = same && (!this.last.ended || now - this.last.at < MERGE_MS) && this.at === this.steps.length - 1;
    this.steps = [...this.steps.slice(0, merge ? this.at : this.at + 1), state];
    this.at = this.steps.length - 1;
    this.last = { thing, at: now, ended };
  }

  // Return the same changes of another revision's report, and the names of those that do not fit it: their disc or
  // corner is not there any more, or was seen on another radiograph.
  onto(report) {
    const [fresh, left] = [new Draft(report), []];
    const seen = ({ regions }, region) => regions[region].radiograph?.pixels_digest;
    const isSame = (region) => seen(this.report, region) === seen(report, region);
    for (const region of this.now.readable.filter((name) => fresh.isRefused(name))) {
      if (isSame(region)) fresh.restore(region);
      else left.push(`the ${region} spine`);
    }
    for (const [region, levels] of Object.entries(this.now.points)) {
      for (const [level, pair] of Object.entries(levels)) {
        const isThere = isSame(region) && !fresh.isRefused(region)
          && fresh._discs(region).some((disc) => disc.level === level);
        if (!isThere) left.push(level);
        else pair.forEach((place, part) => place && fresh.movePoint(region, level, part, place));
      }
    }
    for (const [site, grade] of Object.entries(this.now.grades)) {
      const place = fresh.find(site);
      if (place && isSame(place.region)) fresh.setGrade(site, grade);
      else left.push(site);
    }
    return { fresh, left };
  }

  find(site) {
    for (const [region, { discs }] of Object.entries(this.report.regions)) {
      for (const disc of discs) {
        const corner = disc.corners.find((one) => one.site === site);
        if (corner) return { region, disc, corner };
      }
    }
    return null;
  }

  // The discs of a region as they are to be shown: with changes, with the corners of `preview`, and with those before.
  discs(region, preview) {
    const scored = preview?.regions[region].discs ?? [];
    return this._discs(region).map((disc) => {
      const { level, pair: before, isFound } = disc;
      const next = scored.find((one) => one.level === level);
      const corners = disc.corners.map((corner, at) => {
        const grades = this.now.grades;
        const own = Object.hasOwn(grades, corner.site);
        const grade = own ? grades[corner.site] : (next ?? disc).corners[at].grade;
        return { ...(next ?? disc).corners[at], site: corner.site, grade, before: corner.grade, own };
      });
      const own = this.now.points[region]?.[level] ?? (isFound ? before : [null, null]);
      const points = own.map((place, part) => place ?? before[part]);
      return { level, isFound, before, points, placed: own.map(Boolean), corners };
    });
  }

  // The changes as lines for the reader: regions that can be read, points that moved, and corners whose grade differs, by
  // hand or by new points.
  changes(preview) {
    const lines = this.now.readable.map((region) => ({ kind: "region", region }));
    for (const [region, { radiograph }] of Object.entries(this.report.regions)) {
      for (const disc of this.discs(region, preview)) {
        PARTS.forEach((name, part) => {
          const line = { kind: "point", region, level: disc.level, name };
          if (!disc.isFound) {
            if (disc.placed[part]) lines.push({ ...line, px: null });
            return;
          }
          const px = Math.hypot(...disc.points[part].map((value, at) => value - disc.before[part][at]));
          const mm = radiograph?.pixel_spacing_mm ? px * radiograph.pixel_spacing_mm[1] : null;
          if (px > 0) lines.push({ ...line, px, mm });
        });
        for (const { site, grade, before, own } of disc.corners) {
          if (own || grade !== before) lines.push({ kind: "grade", region, site, before, after: grade, own });
        }
      }
    }
    return lines;
  }

  // The points that are still to be placed, of discs of which the reader has placed one.
  get unplaced() {
    return Object.values(this.now.points).flatMap((levels) => Object.entries(levels).flatMap(([level, pair]) =>
      PARTS.filter((name, part) => !pair[part]).map((name) => `the ${name} point of ${level}`)));
  }

  // Return the changes as the service takes them, without discs of which one point is still to be placed; what there is
  // none of is left out.
  body(revision) {
    const points = {};
    for (const [region, levels] of Object.entries(this.now.points)) {
      const whole = Object.entries(levels).filter(([, pair]) => pair.every(Boolean));
      if (whole.length) points[region] = Object.fromEntries(whole);
    }
    const changes = Object.entries({ ...this.now, points }).filter(([, part]) => Object.keys(part).length > 0);
    return { revision, ...Object.fromEntries(changes) };
  }
}
