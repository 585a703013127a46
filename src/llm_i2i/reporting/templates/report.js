// Contents that follow the reader, tables that sort, plots that tell their values. Without this the page reads as well.
document.documentElement.classList.add("script");

const contents = document.querySelector("nav details");
const wide = matchMedia("(min-width: 1100px)");
const links = [...contents.querySelectorAll("a")];
const fold = () => { contents.open = wide.matches; };
const follow = () => {
  const reached = links.filter((link) => document.querySelector(link.hash).getBoundingClientRect().top < innerHeight / 3);
  links.forEach((link) => link.removeAttribute("aria-current"));
  (reached.at(-1) ?? links[0]).setAttribute("aria-current", "true");
};
wide.addEventListener("change", fold);
contents.addEventListener("click", (event) => { if (event.target.hash) fold(); });
addEventListener("scroll", follow, { passive: true });
fold();
follow();

// A box is a stop of the Tab key only where it scrolls.
const boxes = [...document.querySelectorAll(".scroll")];
const fit = () => boxes.forEach((box) => { box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1; });
addEventListener("resize", fit);

const said = document.getElementById("said");
const byText = new Intl.Collator("en", { numeric: true }).compare;
const textOf = (row, column) => row.cells[column].querySelector("bdi").textContent;
const numberOf = (text) => {
  const found = text.match(/[+\-−]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?/);
  return found ? Number(found[0].replaceAll(",", "").replace("−", "-")) : NaN;
};
for (const table of document.querySelectorAll("table")) {
  const bodies = [...table.tBodies].map((body) => [body, [...body.rows].filter((row) => row.className !== "group")]);
  const heads = [...table.tHead.rows[0].cells];
  if (heads.length < 3 || bodies.every(([, rows]) => rows.length < 2)) continue;
  heads.forEach((head, column) => {
    const isNumber = head.className === "n";
    // Of numbers the largest come first; the third press brings back the order of the page.
    const turns = isNumber ? ["descending", "ascending"] : ["ascending", "descending"];
    const order = (direction) => (one, other) => {
      const sign = direction === "ascending" ? 1 : -1;
      const [a, b] = [textOf(one, column), textOf(other, column)];
      if (!isNumber) return sign * byText(a, b);
      const [x, y] = [numberOf(a), numberOf(b)];
      return isNaN(x) - isNaN(y) || sign * (x - y) || 0; // what is missing stays last
    };
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const direction = turns[turns.indexOf(head.ariaSort) + 1];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (direction) head.setAttribute("aria-sort", direction);
      for (const [body, rows] of bodies) body.append(...(direction ? rows.toSorted(order(direction)) : rows));
      said.textContent = direction ? `Sorted by ${button.textContent}, ${direction}.` : "In the order of the page.";
    });
  });
}
fit();

const tip = document.getElementById("tip");
let shown = null;
const show = (mark) => {
  shown?.classList.remove("at");
  shown = mark;
  tip.hidden = !mark;
  if (!mark) return;
  mark.classList.add("at");
  tip.textContent = mark.ariaLabel;
  const [at, size] = [mark.getBoundingClientRect(), tip.getBoundingClientRect()];
  tip.style.left = `${Math.max(8, Math.min(at.x + at.width / 2 - size.width / 2, innerWidth - size.width - 8))}px`;
  tip.style.top = `${at.y - size.height - 8 > 0 ? at.y - size.height - 8 : at.bottom + 8}px`;
};
for (const group of document.querySelectorAll(".marks")) {
  const [plot, marks] = [group.ownerSVGElement, [...group.children]];
  plot.setAttribute("role", "group"); // an image has no parts
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", "Values; the arrow keys go from one to the next");
  marks.forEach((mark, place) => {
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", mark.textContent);
    mark.setAttribute("tabindex", place ? -1 : 0);
    mark.replaceChildren();
  });
  group.addEventListener("focusin", (event) => show(event.target));
  group.addEventListener("focusout", () => show(null));
  group.addEventListener("keydown", (event) => {
    const place = marks.indexOf(event.target);
    const steps = { ArrowRight: place + 1, ArrowDown: place + 1, ArrowLeft: place - 1, ArrowUp: place - 1, Home: 0, End: -1 };
    if (event.key === "Escape") show(null);
    if (!(event.key in steps)) return;
    event.preventDefault();
    event.target.setAttribute("tabindex", -1);
    const next = marks.at(steps[event.key] % marks.length);
    next.setAttribute("tabindex", 0);
    next.focus();
  });
  const point = (event) => {
    const away = (mark) => {
      const at = mark.getBoundingClientRect();
      return Math.hypot(at.x + at.width / 2 - event.clientX, at.y + at.height / 2 - event.clientY);
    };
    const nearest = marks.reduce((one, other) => (away(other) < away(one) ? other : one));
    show(away(nearest) < 40 ? nearest : null);
  };
  plot.addEventListener("pointermove", point);
  plot.addEventListener("pointerdown", point);
  plot.addEventListener("pointerleave", () => show(null));
}
addEventListener("scroll", () => show(null), { passive: true });
