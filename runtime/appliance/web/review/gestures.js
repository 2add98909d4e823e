// Pointers, wheel and keys of one viewer. A drag is relative to its start, so that a finger does not hide its point.

import { add } from "/review/geometry.js";

const REACH = { mouse: 12, pen: 16, touch: 26 }; // screen pixels around a mark that belong to it
const STILL = 4; // a drag that is shorter is a click
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function listenTo(viewer) {
  const { surface } = viewer;
  const pointers = new Map();
  let held = null; // the drag: { what, mark, start, offset, moved }
  let tapped = null; // the corner whose grades open with the click: before it, a tap of a finger still moves the focus

  const place = (event) => {
    const box = surface.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  function begin(event) {
    const at = place(event);
    if (event.button === 2 || viewer.tool === "window") return { what: "window", start: at };
    const kinds = viewer.tool === "points" ? ["point", "corner"] : ["corner"];
    const mark = viewer.act && viewer.marks.hit(at, REACH[event.pointerType] ?? 12, kinds);
    if (!mark) return { what: "picture", start: at };
    viewer.marks.choose(mark);
    return { what: mark.kind, mark, start: at, offset: [mark.place[0] - at[0], mark.place[1] - at[1]] };
  }

  // End a drag at its last place.
  function release() {
    if (held?.what === "point") movePoint(held.last ?? held.start, true);
    held = null;
    delete surface.dataset.held;
  }

  function movePoint(at, ended) {
    if (held.moved) viewer.act.move(held.mark.level, held.mark.part, viewer.toSource(add(at, held.offset)), ended);
  }

  surface.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 && event.button !== 2) return;
    if (event.target.closest("button")) return;
    event.preventDefault();
    tapped = null;
    surface.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    if (pointers.size > 1) {
      release();
      return;
    }
    held = begin(event);
    if (!held.mark) surface.focus({ preventScroll: true });
    surface.dataset.held = held.what;
  });

  surface.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) {
      hover(event);
      return;
    }
    const at = place(event);
    const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, where]) => where);
    pointers.set(event.pointerId, at);
    if (others.length === 1) {
      const [other] = others;
      const [was, is] = [before, at].map((where) => Math.max(Math.hypot(where[0] - other[0], where[1] - other[1]), 1));
      viewer.pan((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
      viewer.zoom(is / was, [(at[0] + other[0]) / 2, (at[1] + other[1]) / 2]);
      return;
    }
    if (!held) return;
    held.moved ||= Math.hypot(at[0] - held.start[0], at[1] - held.start[1]) >= STILL;
    const [right, down] = [at[0] - before[0], at[1] - before[1]];
    if (held.what === "picture") viewer.pan(right, down);
    if (held.what === "window") viewer.moveWindow(right, down);
    if (held.what === "point") movePoint(at, false);
    held.last = at;
  });

  function hover(event) {
    const isOver = viewer.act && viewer.tool !== "window";
    const mark = isOver && viewer.marks.hit(place(event), REACH.mouse, ["point", "corner"]);
    surface.dataset.over = mark ? mark.kind : "";
  }

  function end(event) {
    if (!pointers.delete(event.pointerId) || !held) return;
    // The browser may take a pointer away, for instance if a palm touches the screen. Such an event has no place.
    if (event.type === "pointerup") {
      held.last = place(event);
      if (held.what === "corner" && !held.moved) tapped = held.mark;
    }
    release();
  }
  surface.addEventListener("pointerup", end);
  surface.addEventListener("click", () => {
    if (tapped) viewer.act.grade(tapped.site, tapped.node);
    tapped = null;
  });
  surface.addEventListener("pointercancel", end);
  surface.addEventListener("contextmenu", (event) => event.preventDefault());
  surface.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 24 : 1;
    viewer.zoom(Math.exp(-event.deltaY * lines * 0.0015), place(event));
  }, { passive: false });
  surface.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (press(viewer, event)) event.preventDefault();
  });
  viewer.marks.root.addEventListener("focusin", (event) => {
    const mark = event.target.closest(".mark")?.mark;
    if (mark?.place && event.target.matches(":focus-visible")) viewer.reveal(viewer.toUpright(mark.place));
  });
}

// Return whether a key meant something here.
function press(viewer, event) {
  const mark = event.target.closest?.(".mark")?.mark;
  const arrow = ARROWS[event.key];
  if (mark?.kind === "point" && arrow && viewer.act && viewer.tool !== "window") {
    const step = event.shiftKey ? 10 : 1;
    const disc = viewer.marks.discs.find((one) => one.level === mark.level);
    const screen = viewer.fromSource(disc.points[mark.part]);
    viewer.act.move(mark.level, mark.part, viewer.toSource(add(screen, arrow, step * viewer.view.scale)), true);
    return true;
  }
  if (mark?.kind === "point" && event.key === "Enter" && viewer.act) {
    const { points, placed } = viewer.marks.discs.find((one) => one.level === mark.level);
    if (!placed[mark.part]) viewer.act.move(mark.level, mark.part, points[mark.part], true);
    return true;
  }
  if (mark?.kind === "corner" && viewer.act) {
    if (event.key === "Enter" || event.key === " ") viewer.act.grade(mark.site, mark.node);
    const grade = gradeOf(event.key);
    if (grade !== undefined) viewer.act.setGrade(mark.site, grade);
    if (event.key === "Enter" || event.key === " " || grade !== undefined) return true;
  }
  if (arrow) {
    const [right, down] = arrow.map((value) => value * (event.shiftKey ? 100 : 20));
    if (viewer.tool === "window") viewer.moveWindow(right, down);
    else viewer.pan(-right, -down);
    return true;
  }
  const acts = {
    "+": () => viewer.zoom(1.25), "=": () => viewer.zoom(1.25), "-": () => viewer.zoom(0.8),
    0: () => viewer.reset(), n: () => viewer.marks.step(1), p: () => viewer.marks.step(-1),
    Escape: () => viewer.surface.focus({ preventScroll: true }),
  };
  acts[event.key]?.();
  return event.key in acts;
}

// Return the grade of a key: 0 to 3, or null for x; undefined for every other key.
export function gradeOf(key) {
  if (key === "x" || key === "X") return null;
  return /^[0-3]$/.test(key) ? Number(key) : undefined;
}
