// The page at /: an item's neighbours before and after augmentation, and what a basket leads to.
// What is shown is in the address (?item=ID or ?view=basket, &basket=ID...), so that it can be linked and gone back to.

const MOST = 100; // neighbours asked for: those below the ones shown tell where an item was before
const TAIL = new Set(["tail", "cold"]);
const by = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en", { minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
const percent = new Intl.NumberFormat("en", { style: "percent" });
const known = new Map(); // what the catalogue says, by item id
let apiKey = ""; // in memory only
let arms; // compared: [{name, arm, explains}], that of real interactions first
let asked = 0; // a later view overtakes an earlier one

// --- asking the service

async function ask(path, body) {
  const headers = { ...(apiKey && { "X-API-Key": apiKey }), ...(body && { "Content-Type": "application/json" }) };
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  if (answer.status === 401) {
    await askKey();
    return ask(path, body);
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.detail ?? `The service answered with status ${answer.status}.`);
  return content;
}

let asking; // all requests without a key wait for one answer

function askKey() {
  by("key-wrong").textContent = apiKey ? "This key is wrong." : "";
  asking ??= new Promise((resolve) => {
    by("key").showModal();
    by("key").querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      apiKey = by("key-text").value.trim();
      by("key-text").value = "";
      by("key").close();
      asking = undefined;
      resolve();
    };
  });
  return asking;
}

async function look(ids) {
  const missing = [...new Set(ids)].filter((id) => !known.has(id));
  for (let at = 0; at < missing.length; at += 50) {
    const some = missing.slice(at, at + 50).map((id) => `item_id=${encodeURIComponent(id)}`);
    keep((await ask(`v1/items?${some.join("&")}`)).items);
  }
}

function keep(items) {
  for (const item of items) known.set(item.item_id, item);
  return items;
}

// --- making elements

function make(tag, properties = {}, ...children) {
  const { data = {}, ...others } = properties;
  const element = Object.assign(document.createElement(tag), others);
  Object.assign(element.dataset, data);
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

const aria = (element, name, value) => (element.setAttribute(`aria-${name}`, value), element);
const unseen = (text) => make("span", { className: "unseen" }, text);
const badge = (kind, ...children) => make("span", { className: `badge ${kind}` }, ...children);
const count = (n, one, more = `${one}s`) => `${n} ${n === 1 ? one : more}`;
const title = (id) => known.get(id)?.title || `Item ${id}`;
const isTail = (id) => TAIL.has(known.get(id)?.bucket) || known.get(id)?.is_long_tail;

function opener(id) {
  const onclick = () => go({ view: "item", item: id });
  return make("button", { type: "button", className: "title", onclick }, title(id));
}

const what = (id, ...more) => make("div", { className: "what" }, opener(id), ...more);

function about(id) {
  const tail = isTail(id) ? badge("tail", "tail") : null;
  const category = known.get(id)?.category;
  return [tail, category ? make("span", { className: "category", title: category }, category) : null];
}

function adder(id) {
  const inside = view().basket.includes(id);
  const asks = { type: "button", className: "small", data: { add: id }, onclick: () => change(id) };
  const button = make("button", asks, inside ? "✓" : "+");
  return aria(aria(button, "label", `${title(id)} in the basket`), "pressed", inside);
}

// --- the address

function view() {
  const told = new URLSearchParams(location.search);
  return { view: told.get("view") ?? "item", item: told.get("item"), basket: told.getAll("basket") };
}

function go(changes, { quietly = false } = {}) {
  const next = { ...view(), ...changes };
  const told = new URLSearchParams(next.basket.map((id) => ["basket", id]));
  if (next.item !== null) told.set("item", next.item);
  if (next.view === "basket") told.set("view", "basket");
  history[quietly ? "replaceState" : "pushState"](null, "", `?${told}`);
  if (!quietly) show({ focus: true });
}

// --- the basket

function change(id) {
  const { basket } = view();
  const inside = basket.includes(id);
  setBasket(inside ? basket.filter((other) => other !== id) : [...basket, id]);
  say(`${title(id)} ${inside ? "taken out of" : "put into"} the basket.`);
}

function setBasket(basket) {
  go({ basket }, { quietly: true });
  showBasket();
  if (view().view === "basket") show();
}

function showBasket() {
  const { basket } = view();
  by("basket-count").textContent = basket.length ? `(${basket.length})` : "";
  by("basket-hint").hidden = basket.length > 0;
  by("basket-actions").hidden = basket.length === 0;
  by("basket").replaceChildren(
    ...basket.map((id) => {
      const button = make("button", { type: "button", className: "small", onclick: () => takeOut(id) }, "×");
      return make("li", {}, what(id), aria(button, "label", `Take ${title(id)} out`));
    }),
  );
  for (const button of document.querySelectorAll("[data-add]")) {
    const inside = basket.includes(button.dataset.add);
    aria(button, "pressed", inside).textContent = inside ? "✓" : "+";
  }
}

function takeOut(id) {
  const at = view().basket.indexOf(id);
  change(id);
  const left = [...by("basket").querySelectorAll("button.small")];
  (left[Math.min(at, left.length - 1)] ?? by("words")).focus();
}

// --- search

let searched = 0;

async function search() {
  const words = by("words").value.trim();
  const mine = ++searched;
  const { items } = await ask(`v1/items?title=${encodeURIComponent(words)}&limit=${words ? 30 : 12}`);
  if (mine !== searched) return;
  by("found-heading").textContent = words ? `${count(items.length, "item")} found` : "Most popular items";
  by("found").replaceChildren(
    ...keep(items).map(({ item_id: id }) =>
      make("li", {}, what(id, make("div", { className: "meta" }, ...about(id))), adder(id)),
    ),
  );
  if (words) say(`${count(items.length, "item")} found for ${words}.`);
}

// --- the lists

async function show({ focus = false } = {}) {
  const mine = ++asked;
  const { view: kind, item, basket } = view();
  const ids = kind === "basket" ? basket : item === null ? [] : [item];
  by("result").classList.add("busy");
  try {
    await look([...ids, ...basket]);
    showBasket();
    const query = { history: ids, k: MOST, explain: true };
    const list = async (arm) => listed(arm, kind, await ask("v1/recommend", { ...query, arm: arm.name }));
    const lists = ids.length ? await Promise.all(arms.map(list)) : [];
    const shown = Number(by("k").value);
    await look(lists.flatMap((list) => list.items.slice(0, shown).map((found) => found.item_id)));
    if (mine === asked) draw(kind, ids, lists, shown);
  } finally {
    if (mine === asked) by("result").classList.remove("busy");
  }
  if (mine === asked && focus) by("result-heading").focus();
}

// A popular item that fills a list is recommended, but nobody's neighbour.
function listed(arm, kind, answer) {
  const all = answer.items.map((found, at) => ({ ...found, rank: at + 1 }));
  const neighbours = all.filter(({ source }) => source !== "popularity");
  const ranks = new Map(neighbours.map((found) => [found.item_id, found.rank]));
  const [items, reason] = kind === "item" ? [neighbours, ""] : [all, answer.reason];
  return { ...arm, items, ranks, reason };
}

function draw(kind, ids, lists, shown) {
  const [before, after] = lists.length > 1 ? lists : [null, lists[0]];
  for (const list of lists) {
    list.items = list.items.slice(0, shown).map((found) => ({ ...found, ...moved(found, list, before, after) }));
  }
  heading(kind, ids);
  by("shown").hidden = lists.length === 0;
  by("changes").replaceChildren(...(lists.length ? summary(before, after) : []));
  by("columns").replaceChildren(by("lines"), ...lists.map((list) => column(list, ids, lists.length > 1)));
  lines();
  if (lists.length) say(`${by("result-heading").textContent}: ${by("changes").innerText.replaceAll("\n", ", ")}.`);
}

function heading(kind, ids) {
  const basket = ids.length ? `For the basket of ${count(ids.length, "item")}` : "The basket is empty";
  const text = kind === "basket" ? basket : ids.length ? title(ids[0]) : "Choose an item";
  by("result-heading").textContent = text;
  document.title = `${text} · llm-i2i`;
  let more = ["Search for one, or take a popular one. Its neighbours appear here."];
  if (kind === "basket") more = ["What is recommended to someone who took these items."];
  else if (ids.length) more = ["Its neighbours. ", ...about(ids[0]).filter((part) => part !== null)];
  by("result-about").replaceChildren(...more);
}

// How an item came to its place: {move, from}, where `from` is its rank before, or null if it had none. Of the list
// before: {move, to}.
function moved(found, list, before, after) {
  if (found.source === "popularity") return { move: "" };
  if (list === before) {
    const to = after.ranks.get(found.item_id) ?? null;
    return { move: to === null ? "gone" : compared(found.rank, to), to };
  }
  if (!before && !comparable(list)) return { move: "" };
  const edge = found.why.length === 1 ? found.why[0].real_rank : undefined; // without a list before
  const from = before ? (before.ranks.get(found.item_id) ?? null) : edge;
  if (from === undefined) return { move: synthetic(found) ? "new" : "" };
  return { move: from === null ? "new" : compared(from, found.rank), from };
}

const compared = (from, to) => (to < from ? "up" : to > from ? "down" : "same");
const comparable = (list) => list.explains.includes("real") && list.arm !== "real";
const synthetic = (found) => found.why?.length > 0 && found.why.every((edge) => edge.real_rank === null);

function summary(before, after) {
  const total = (list, move) => list.items.filter((found) => found.move === move).length;
  const told = [
    ["new", total(after, "new"), "new"],
    ["up", total(after, "up"), "moved up"],
    ["down", total(after, "down"), "moved down"],
  ];
  const left = before?.items.filter(({ move, to }) => move === "gone" || to > after.items.length) ?? [];
  told.push(["gone", left.length, "left the list"]);
  const made = told.filter(([, n]) => n > 0).map(([kind, n, text]) => badge(kind, `${n} ${text}`));
  const fresh = after.items.filter((found) => found.move === "new");
  const pure = comparable(after) ? fresh.filter(synthetic).length : 0;
  if (pure) made[0].append(`, ${pure === fresh.length ? "" : `${pure} `}through synthetic pairs alone`);
  const tails = (list) => list.items.filter((found) => isTail(found.item_id)).length;
  const now = tails(after);
  made.push(badge("tail", before ? `tail items: ${tails(before)} before, ${now} after` : count(now, "tail item")));
  if (!before && !comparable(after)) made.push(badge("", "no other arm to compare with"));
  return made.map((element) => make("li", {}, element));
}

function column(list, ids, named) {
  const of = { real: "real interactions alone", llm_i2i: "real and synthetic pairs" }[list.arm] ?? "";
  const name = named && list.name !== list.arm ? `${list.name}: arm ${list.arm}` : `Arm ${list.arm}`;
  const rows = make("ol", { className: "plain" }, ...list.items.map((found) => row(found, list, ids)));
  return make(
    "section", { data: { arm: list.name } },
    make("h3", {}, name), make("p", { className: "quiet" }, of), aria(rows, "label", name),
    list.items.length ? null : make("p", {}, "It has no neighbours here."),
    list.reason ? make("p", { className: "quiet" }, list.reason) : null,
  );
}

function row(found, list, ids) {
  const id = found.item_id;
  const share = make("i");
  share.style.setProperty("--share", percent.format(found.score / list.items[0].score));
  const same = found.source === list.items[0].source; // scores of others cannot be compared
  const bar = same ? aria(make("span", { className: "bar" }, share), "hidden", true) : null;
  const link = { text: "by text", popularity: "popular" }[found.source];
  const score = make("span", { className: "score" }, unseen("score "), number.format(found.score));
  const told = make("div", { className: "why", hidden: true }, reasons(found, list, ids));
  const from = link ? badge("", link) : null;
  const meta = make("div", { className: "meta line" }, bar, score, asker(id, told), from, ...about(id));
  return make(
    "li", { data: { id, move: found.move } },
    make("div", { className: "row" },
      aria(make("span", { className: "rank" }, String(found.rank)), "hidden", true),
      what(id, meta), mark(found), adder(id)),
    told,
  );
}

function asker(id, told) {
  const open = ({ currentTarget: button }) => {
    told.hidden = !told.hidden;
    aria(button, "expanded", !told.hidden);
    lines();
  };
  const button = make("button", { type: "button", className: "ask", onclick: open }, "why?");
  return aria(aria(button, "label", `why? ${title(id)}`), "expanded", false);
}

function mark({ move, from, to, rank }) {
  if (move === "new") return badge("new", "new");
  if (move === "gone") return badge("gone", "gone", unseen(" from the list beside"));
  if (to !== undefined) return to === rank ? badge("", "stays") : badge(move, `now ${to}`);
  if (move === "up" || move === "down") return badge(move, `${move === "up" ? "↑" : "↓"} was ${from}`);
  return move === "same" ? badge("", "=", unseen(" same rank")) : "";
}

function reasons(found, list, ids) {
  const whole = found.why?.reduce((sum, edge) => sum + edge.contribution, 0);
  const told = (found.why ?? []).map((edge) => {
    const parts = [];
    const source = title(edge.item_id);
    if (ids.length > 1) parts.push(`${source}: ${percent.format(edge.contribution / whole)} of the score.`);
    if (found.source === "text") parts.push(`The index does not know ${source}; this is near by its words.`);
    if (edge.users !== null && found.source === "index") parts.push(supporters(edge));
    if (comparable(list)) parts.push(against(edge));
    return make("li", {}, parts.join(" "));
  });
  if (!told.length) told.push(make("li", {}, "It is among the most popular items; nothing nearer is left."));
  return make("ul", {}, ...told);
}

function supporters({ users, synthetic_users: made }) {
  const text = users || !made ? `${count(users, "user")} took both` : "No user took both";
  if (!made) return `${text}.`;
  return `${text}, ${made}${users ? " more" : ""} ${made === 1 ? "has" : "have"} both by synthetic pairs.`;
}

function against({ score, rank, real_score: real, real_rank: realRank }) {
  if (realRank === null)
    return "Not among its neighbours with real interactions alone: synthetic pairs brought it here.";
  const place = (at, worth) => `rank ${at}, score ${number.format(worth)}`;
  return `With real interactions alone: ${place(realRank, real)}; here ${place(rank, score)}.`;
}

// Lines between the two lists: where each item went.
function lines() {
  const [left, right] = by("columns").querySelectorAll("section");
  const frame = by("columns").getBoundingClientRect();
  const paths = [];
  for (const from of right ? left.querySelectorAll("[data-id]") : []) {
    const to = right.querySelector(`[data-id="${CSS.escape(from.dataset.id)}"]`);
    if (!to) continue;
    const [a, b] = [from, to].map((element) => element.firstChild.getBoundingClientRect());
    const [x, X] = [a.right + 6 - frame.left, b.left + 2 - frame.left];
    const [y, Y] = [a, b].map(({ top, height }) => top + height / 2 - frame.top);
    const middle = (x + X) / 2;
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", to.dataset.move);
    path.setAttribute("d", `M${x} ${y}C${middle} ${y} ${middle} ${Y} ${X} ${Y}`);
    paths.push(path);
  }
  by("lines").replaceChildren(...paths);
}

// --- starting

const say = (text) => (by("status").textContent = text);
const told = (action) => async (...given) => {
  try {
    by("error").textContent = "";
    await action(...given);
  } catch (error) {
    by("error").textContent = error instanceof TypeError ? "The service cannot be reached." : error.message;
  }
};

async function start() {
  const told = (await ask("v1/index")).arms;
  const served = told.map(({ arm: name, manifest, ...more }) => ({ ...manifest, ...more, name }));
  arms = served.sort((a, b) => (b.arm === "real") - (a.arm === "real")).slice(0, 2);
  const texts = arms.map(({ name, model, version }) => `${name}: ${model}, version ${version}`);
  by("facts").textContent = texts.join(" · ");
  await Promise.all([search(), show()]);
}

show = told(show);
search = told(search);
let typing;
by("words").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, 150);
});
by("k").addEventListener("change", () => show());
by("recommend").addEventListener("click", () => go({ view: "basket" }));
by("clear").addEventListener("click", () => {
  setBasket([]);
  by("words").focus();
  say("The basket is empty.");
});
addEventListener("popstate", () => show());
new ResizeObserver(lines).observe(by("columns"));
told(start)();
