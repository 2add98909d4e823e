// The meaning of the grades (Creemers et al. 2005, doi 10.1136/ard.2004.020503), with their badges.

import { badge, element } from "/review/dom.js";
import { MEANINGS } from "/review/marks.js";

export const legend = () => element("ul", { class: "legend", "aria-label": "Grades" },
  [0, 1, 2, 3, null].map((grade) => element("li", {}, badge(grade), ` ${MEANINGS[grade]}`)));
