// A reader's changes of one revision before they are saved. Nothing is sent or kept from here.

const MERGE_MS = 1000; // changes of the same thing within this time are one step to undo, as is a drag

export const PARTS = ["centre", "anterior"];

const discsOf = (region) => (region.discs.length ? region.discs : region.untrusted_points);

export class Draft {
  constructor(report) {
    this.report = report;
    this.steps = [{ points: {}, grades: {} }];
    this.at = 0;
    this.last = null;
  }

  get now() {
    return this.steps[this.at];
  }

  get isEmpty() {
    return Object.keys(this.now.points).length === 0 && Object.keys(this.now.grades).length === 0;
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.steps.length - 1;
  }

  // Points are kept by region and level, [centre, anterior], as the service takes them.
  movePoint(region, level, part, place, ended = true) {
    const disc = discsOf(this.report.regions[region]).find((one) => one.level === level);
    const before = [disc.centre_px, disc.anterior_px];
    const pair = [...(this.now.points[region]?.[level] ?? before)];
    pair[part] = place.map((value) => Math.round(value * 1000) / 1000);
    const levels = { ...this.now.points[region], [level]: pair };
    if (String(pair) === String(before)) delete levels[level];
    const points = { ...this.now.points, [region]: levels };
    if (Object.keys(levels).length === 0) delete points[region];
    this._step(`${region} ${level} ${part}`, { ...this.now, points }, ended);
  }

  setGrade(site, grade) {
    const grades = { ...this.now.grades, [site]: grade };
    const { disc, region, corner } = this.find(site);
    const moved = this.now.points[region]?.[disc.level];
    if (!moved && corner.grade === grade) delete grades[site];
    this._step(site, { ...this.now, grades });
  }

  // Take back everything that was changed at one corner or one point pair.
  drop({ site, region, level }) {
    const { points, grades } = structuredClone(this.now);
    if (site) delete grades[site];
    if (level) delete points[region][level];
    if (level && Object.keys(points[region]).length === 0) delete points[region];
    this._step(null, { points, grades });
  }

  discard() {
    this._step(null, { points: {}, grades: {} });
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
    for (const [region, levels] of Object.entries(this.now.points)) {
      for (const [level, pair] of Object.entries(levels)) {
        const isThere = isSame(region) && discsOf(report.regions[region]).some((disc) => disc.level === level);
        if (isThere) pair.forEach((place, part) => fresh.movePoint(region, level, part, place));
        else left.push(level);
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
    return discsOf(this.report.regions[region]).map((disc) => {
      const before = [disc.centre_px, disc.anterior_px];
      const next = scored.find((one) => one.level === disc.level);
      const corners = (disc.corners ?? []).map((corner, at) => {
        const grades = this.now.grades;
        const own = Object.hasOwn(grades, corner.site);
        const grade = own ? grades[corner.site] : (next ?? disc).corners[at].grade;
        return { ...(next ?? disc).corners[at], site: corner.site, grade, before: corner.grade, own };
      });
      const points = this.now.points[region]?.[disc.level] ?? before;
      return { level: disc.level, points, before, corners, confidence: disc.confidence };
    });
  }

  // The changes as lines for the reader: points that moved, and corners whose grade differs, by hand or by new points.
  changes(preview) {
    const lines = [];
    for (const [region, { radiograph }] of Object.entries(this.report.regions)) {
      for (const disc of this.discs(region, preview)) {
        PARTS.forEach((name, part) => {
          const px = Math.hypot(...disc.points[part].map((value, at) => value - disc.before[part][at]));
          const mm = radiograph?.pixel_spacing_mm ? px * radiograph.pixel_spacing_mm[1] : null;
          if (px > 0) lines.push({ kind: "point", region, level: disc.level, name, px, mm });
        });
        for (const { site, grade, before, own } of disc.corners) {
          if (own || grade !== before) lines.push({ kind: "grade", region, site, before, after: grade, own });
        }
      }
    }
    return lines;
  }

  body(revision) {
    return { revision, points: this.now.points, grades: this.now.grades };
  }
}
