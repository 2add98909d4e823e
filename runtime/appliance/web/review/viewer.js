// One radiograph: canvas, marks, zoom, window. It draws once for each animation frame in which something changed.

import { button, element, told } from "/review/dom.js";
import { source, upright } from "/review/geometry.js";
import { Marks } from "/review/marks.js";
import { Picture, draw, fillTable } from "/review/raster.js";
import { listenTo } from "/review/gestures.js";

const MOST_RATIO = 2; // canvas pixels for each pixel of the page
const MOST_ZOOM = 16;

export class Viewer {
  // `act` has `move(level, part, place, ended)`, `grade(site, node)` and `setGrade(site, grade)`; without it nothing
  // can be changed.
  constructor(label, act = null) {
    this.act = act;
    this.label = label;
    this.tool = "points";
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.table = new Uint32Array(1 << 16);
    this.view = { x: 0, y: 0, scale: 1 }; // the upright place in the middle, and screen pixels for each pixel
    this.isFitted = true;
    this.size = { width: 1, height: 1, turn: 0, rows: 1, columns: 1 };
    this.marks = new Marks(label, () => this.size, act !== null);
    this.note = element("div", { class: "waiting" });
    const keys = "Plus and minus zoom, arrow keys move the picture or change the window, 0 shows all";
    this.surface = element("div", { class: "surface", tabindex: "0", role: "group", "aria-label": `${label}. ${keys}` },
      this.canvas, this.marks.root, this.note);
    this.reading = element("span", { class: "reading" });
    this.root = element("div", { class: "viewer" }, this.surface, this._bar());
    this.wait();
    listenTo(this);
    new ResizeObserver(() => this._resized()).observe(this.surface);
  }

  _bar() {
    const named = (text, name, act) => button(text, act, { "aria-label": `${name}: ${this.label}`, title: name });
    return element("div", { class: "bar" },
      named("−", "Zoom out", () => this.zoom(1 / 1.25)), named("+", "Zoom in", () => this.zoom(1.25)),
      named("Fit", "Fit, show all", () => this.fit()),
      named("1:1", "1:1, one pixel for each pixel", () => this.zoomTo(1 / this.ratio)),
      named("Reset", "Reset zoom and window", () => this.reset()), this.reading);
  }

  get ratio() {
    return Math.min(window.devicePixelRatio || 1, MOST_RATIO);
  }

  // The size is known before the pixels are: the marks can be drawn meanwhile.
  setSize(rows, columns, turn) {
    const [width, height] = turn % 180 === 0 ? [columns, rows] : [rows, columns];
    this.size = { width, height, turn, rows, columns };
    this.fit();
  }

  // The pixels come after the size.
  setPixels({ pixels, window: shown }) {
    const { rows, columns, turn } = this.size;
    this.picture = new Picture(pixels, rows, columns, turn);
    this.first = { centre: shown.centre, width: shown.width };
    this.note.remove();
    this.setWindow(shown.centre, shown.width);
  }

  wait() {
    this.note.replaceChildren("The radiograph is loading…");
    this.note.className = "waiting";
  }

  // Say why there is no radiograph; `again` is a button for the next step.
  refuse(error, again) {
    this.note.replaceChildren(element("p", { role: "alert" }, `The radiograph was not loaded. ${told(error)}`), again);
    this.note.className = "waiting refused";
  }

  setMarks(discs, caution = false) {
    this.marks.update(discs, caution);
    this.draw();
  }

  setWindow(centre, width) {
    this.window = { centre: Math.min(Math.max(centre, 0), 65535), width: Math.min(Math.max(width, 2), 131070) };
    this.isTableOld = true;
    this.draw();
  }

  // Change the window by a drag on the screen: to the right for more contrast's range, down for darker pictures.
  moveWindow(right, down) {
    if (!this.first) return;
    const unit = this.first.width / 300;
    this.setWindow(this.window.centre + down * unit, this.window.width + right * unit);
  }

  fit() {
    const { width, height } = this.size;
    this.isFitted = true;
    const scale = Math.min((this.surface.clientWidth || 1) / width, (this.surface.clientHeight || 1) / height);
    this.view = { x: (width - 1) / 2, y: (height - 1) / 2, scale };
    this.draw();
  }

  reset() {
    this.fit();
    if (this.first) this.setWindow(this.first.centre, this.first.width);
  }

  // Zoom by a factor about a place on the screen (the middle if it is not given).
  zoom(factor, place = [this.surface.clientWidth / 2, this.surface.clientHeight / 2]) {
    this.zoomTo(this.view.scale * factor, place);
  }

  zoomTo(scale, place = [this.surface.clientWidth / 2, this.surface.clientHeight / 2]) {
    const { clientWidth, clientHeight } = this.surface;
    const least = Math.min(clientWidth / this.size.width, clientHeight / this.size.height) / 2;
    const before = this.toUpright(place);
    this.view.scale = Math.min(Math.max(scale, least), MOST_ZOOM);
    const after = this.toUpright(place);
    this.view.x += before[0] - after[0];
    this.view.y += before[1] - after[1];
    this.isFitted = false;
    this._keepInside();
    this.draw();
  }

  pan(right, down) {
    this.view.x -= right / this.view.scale;
    this.view.y -= down / this.view.scale;
    this.isFitted = false;
    this._keepInside();
    this.draw();
  }

  _keepInside() {
    this.view.x = Math.min(Math.max(this.view.x, 0), this.size.width - 1);
    this.view.y = Math.min(Math.max(this.view.y, 0), this.size.height - 1);
  }

  // Bring an upright place into sight, if it is not.
  reveal([x, y]) {
    const margin = 30;
    const [left, top] = this.toScreen([x, y]);
    const { clientWidth: width, clientHeight: height } = this.surface;
    if (left > margin && top > margin && left < width - margin && top < height - margin) return;
    Object.assign(this.view, { x, y });
    this.isFitted = false;
    this.draw();
  }

  toScreen([x, y]) {
    const { clientWidth: width, clientHeight: height } = this.surface;
    return [(x - this.view.x) * this.view.scale + width / 2, (y - this.view.y) * this.view.scale + height / 2];
  }

  toUpright([left, top]) {
    const { clientWidth: width, clientHeight: height } = this.surface;
    return [(left - width / 2) / this.view.scale + this.view.x, (top - height / 2) / this.view.scale + this.view.y];
  }

  toSource(place) {
    return source(this.toUpright(place), this.size.turn, this.size.rows, this.size.columns);
  }

  fromSource(point) {
    return this.toScreen(upright(point, this.size.turn, this.size.rows, this.size.columns));
  }

  _resized() {
    if (!this.surface.clientWidth) return; // it is not shown
    if (this.isFitted) this.fit();
    else this.draw();
  }

  draw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => this._draw());
  }

  _draw() {
    this.frame = null;
    const { clientWidth: width, clientHeight: height } = this.surface;
    if (!width || !height) return;
    this.marks.place((place) => this.toScreen(place), this.view.scale);
    if (this.picture) this._drawPicture(width, height);
    this._read();
    this.ondrawn?.();
  }

  _drawPicture(width, height) {
    const [columns, rows] = [Math.round(width * this.ratio), Math.round(height * this.ratio)];
    if (this.canvas.width !== columns || this.canvas.height !== rows || !this.image) {
      Object.assign(this.canvas, { width: columns, height: rows });
      this.image = this.context.createImageData(columns, rows);
      this.colours = new Uint32Array(this.image.data.buffer);
    }
    if (this.isTableOld) fillTable(this.table, this.window.centre, this.window.width);
    this.isTableOld = false;
    const half = 0.5 / this.ratio; // the first canvas pixel's middle
    const [left, top] = this.toUpright([half, half]);
    draw(this.picture, this.table, { left, top, scale: this.view.scale * this.ratio }, this.colours, columns, rows);
    this.context.putImageData(this.image, 0, 0);
  }

  _read() {
    const zoom = `${Math.round(this.view.scale * this.ratio * 100)} %`;
    const shown = this.window ? `, window ${Math.round(this.window.centre)} / ${Math.round(this.window.width)}` : "";
    this.reading.textContent = zoom + shown;
  }
}
