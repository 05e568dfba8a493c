"use strict";
// Two rows side by side, query by query. All text comes in through text nodes; nothing is fetched.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const by = (id) => document.getElementById(id);
  const IMAGES = 0;
  const FAIL = 10; // Nothing of its own among so many first: a row fails.
  const LISTED = 300; // Queries that the list shows at once.

  // ---- What was packed ----

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const words = (text) => new Uint32Array(bytes(text).buffer);
  const shorts = (text) => new Uint16Array(bytes(text).buffer);
  const reals = (text) => new Float32Array(bytes(text).buffer);

  function unpacked(side) {
    if (!side.open) {
      side.open = {
        items: side.narrow ? shorts(side.items) : words(side.items),
        none: side.narrow ? 0xffff : 0xffffffff,
        scores: shorts(side.scores),
        marks: bytes(side.marks),
        ranks: reals(side.ranks),
        each: side.each === null ? null : reals(side.each),
      };
    }
    return side.open;
  }

  /** The best items of a query: position, score, whether it is the query's own. */
  function best(side, query) {
    const open = unpacked(side);
    const out = [];
    for (let at = 0; at < side.shown; at += 1) {
      const item = open.items[query * side.shown + at];
      if (item === open.none) break;
      const share = open.scores[query * side.shown + at] / 65535;
      out.push({ item, share, score: side.low + share * (side.high - side.low), own: (open.marks[query] >> at & 1) === 1 });
    }
    return out;
  }

  /** The own items of a query with their place in `each`; nothing where only the best one's rank is known. */
  function truth(set, direction, query) {
    if (!set.own) return [];
    const lists = set.own[direction];
    lists.open ??= { starts: words(lists.starts), items: words(lists.items) };
    const out = [];
    for (let at = lists.open.starts[query]; at < lists.open.starts[query + 1]; at += 1) out.push({ item: lists.open.items[at], at });
    return out;
  }

  // ---- What is chosen ----

  const now = { set: 0, direction: 1, first: 0, second: 1, filter: "all", class: "", search: "", query: 0 };
  let listed = [];

  const set = () => data.sets[now.set];
  const rows = () => [set().rows[now.first], set().rows[now.second]];
  const sides = () => rows().map((row) => row.sides[now.direction]);
  const ranks = () => sides().map((side) => unpacked(side).ranks);
  const asked = () => data.collections[set().asked];
  const searched = () => data.collections[set().searched];

  function name(collection, kind, at) {
    if (!collection) return `${kind === IMAGES ? "image" : "text"} ${at}`;
    return (kind === IMAGES ? collection.images : collection.texts)[at] ?? `${at}`;
  }
  function captions(collection, image) {
    return collection ? (collection.textsOf[image] ?? []).map((text) => collection.texts[text]) : [];
  }
  function asks(query) {
    return name(asked(), now.direction, query);
  }
  /** Everything in which a search looks. */
  function said(query) {
    const own = now.direction === IMAGES ? captions(asked(), query) : [];
    return [asks(query), ...own].join(" \n ").toLowerCase();
  }
  function classesOf(query) {
    return asked()?.classes[now.direction]?.[query] ?? [];
  }
  /** The place of a text in the sample of captions whose words are looked into. */
  function caption(query) {
    const at = now.direction === IMAGES ? -1 : (set().sample ?? []).findIndex((it) => it.text === query);
    return at < 0 ? null : at;
  }
  const show = (rank) => rank === 0 ? "–" : Number.isInteger(rank) ? `${rank}` : rank.toFixed(1);

  function passes(query) {
    const [a, b] = ranks().map((all) => all[query] || Infinity);
    switch (now.filter) {
      case "first": return a < b;
      case "second": return b < a;
      case "ties": return a === b;
      case "fail": return a > FAIL && b > FAIL;
      case "words": return caption(query) !== null;
      default: return true;
    }
  }

  // ---- Elements ----

  function element(tag, attributes, ...inside) {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes ?? {})) {
      if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
    }
    made.append(...inside.filter((it) => it !== null && it !== undefined));
    return made;
  }
  function svg(tag, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }
  function options(select, names, chosen) {
    select.replaceChildren(...names.map(([value, text]) => {
      const option = element("option", { value }, text);
      option.selected = `${value}` === `${chosen}`;
      return option;
    }));
  }

  // One rule a sheet of pictures: its address stands in the page once.
  const sheet = new CSSStyleSheet();
  data.collections.forEach((collection, at) => {
    if (collection.pictures) sheet.insertRule(`.sheet-${at} { background-image: url("${collection.pictures}"); }`);
  });
  document.adoptedStyleSheets = [sheet];

  function picture(which, at, side) {
    const collection = data.collections[which];
    if (!collection?.pictures) return null;
    const width = side ?? data.side;
    const columns = Math.min(data.columns, collection.images.length);
    const shown = element("span", { class: `picture sheet-${which}`, role: "img", "aria-label": `picture: ${collection.images[at]}` });
    shown.style.width = shown.style.height = `${width}px`;
    shown.style.backgroundSize = `${columns * width}px auto`;
    shown.style.backgroundPosition = `${-(at % data.columns) * width}px ${-Math.floor(at / data.columns) * width}px`;
    return shown;
  }
  const askingPicture = (query, side) => now.direction === IMAGES ? picture(set().asked, query, side) : null;
  const foundPicture = (item, side) => now.direction === IMAGES ? null : picture(set().searched, item, side);

  /** What an item of the gallery is called, in one or two lines. */
  function called(item) {
    const kind = 1 - now.direction;
    if (kind !== IMAGES) return [name(searched(), kind, item)];
    const texts = captions(searched(), item);
    return texts.length > 0 ? [texts.join(" / "), name(searched(), kind, item)] : [name(searched(), kind, item)];
  }

  // ---- The list ----

  function list() {
    const wanted = now.search.toLowerCase().split(/\s+/).filter(Boolean);
    const count = set().queries[now.direction];
    listed = [];
    for (let query = 0; query < count; query += 1) {
      if (now.class !== "" && !classesOf(query).includes(Number(now.class))) continue;
      if (!passes(query)) continue;
      if (wanted.length > 0) {
        const text = said(query);
        if (!wanted.every((word) => text.includes(word))) continue;
      }
      listed.push(query);
    }
    if (!listed.includes(now.query) && listed.length > 0) now.query = listed[0];
    const [a, b] = ranks();
    const from = Math.max(0, Math.min(listed.indexOf(now.query) - LISTED / 2, listed.length - LISTED));
    by("list").replaceChildren(...listed.slice(from, from + LISTED).map((query) => {
      const line = element("li", { role: "option", id: `query-${query}`, "aria-selected": `${query === now.query}` },
        askingPicture(query, 32),
        element("span", {}, now.direction === IMAGES ? captions(asked(), query).join(" / ") || asks(query) : asks(query)),
        element("small", {}, `${show(a[query])} | ${show(b[query])}`));
      line.addEventListener("click", () => choose(query));
      return line;
    }));
    const more = listed.length > LISTED ? `, ${LISTED} of them listed here` : "";
    by("count").textContent = listed.length === 0
      ? "No query passes: change the search or the filter."
      : `${listed.length} of ${count}${more}; behind each the rank of its best own item, first | second row`;
    mark();
  }

  function mark() {
    for (const line of by("list").children) line.setAttribute("aria-selected", `${line.id === `query-${now.query}`}`);
    const chosen = document.getElementById(`query-${now.query}`);
    if (chosen) {
      by("list").setAttribute("aria-activedescendant", chosen.id);
      const box = by("list");
      const top = chosen.offsetTop - box.offsetTop;
      if (top < box.scrollTop) box.scrollTop = top;
      if (top + chosen.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = top + chosen.offsetHeight - box.clientHeight;
    } else {
      by("list").removeAttribute("aria-activedescendant");
    }
  }

  function choose(query) {
    now.query = query;
    if (!document.getElementById(`query-${query}`) && listed.includes(query)) list();
    mark();
    answer();
    points();
    remember();
  }

  function step(by) {
    const at = listed.indexOf(now.query) + by;
    if (at >= 0 && at < listed.length) choose(listed[at]);
  }

  // ---- The answers ----

  function answer() {
    const box = by("answer");
    painters = [];
    if (listed.length === 0) {
      box.replaceChildren();
      return;
    }
    const query = now.query;
    const head = element("h3", {}, askingPicture(query, 72), " ", now.direction === IMAGES ? asks(query) : `“${asks(query)}”`);
    const parts = [head];
    const own = truth(set(), now.direction, query);
    const open = sides().map(unpacked);
    if (own.length > 0) {
      const line = ({ item, at }) => {
        const both = open.map((side) => side.each ? show(side.each[at]) : "–").join(" and ");
        return element("li", {}, foundPicture(item, 40), element("span", {}, ...lines(called(item)), `rank ${both}`));
      };
      parts.push(element("p", { class: "files" }, "What belongs to it, with its rank in both rows:"), element("ul", { class: "truth" }, ...own.map(line)));
    } else {
      const names = classesOf(query).map((it) => set().classes[it] ?? `class ${it}`).join(", ");
      parts.push(element("p", {}, names ? `Class: ${names}. ` : "", `Best item of its class: rank ${open.map((side) => show(side.ranks[query])).join(" and ")}.`));
    }
    parts.push(element("div", { class: "sides" }, ...rows().map((row, at) => column(row, sides()[at], query))));
    box.replaceChildren(...parts);
  }

  const lines = (texts) => texts.flatMap((text, at) => [at === 0 ? text : element("small", {}, text), element("br")]);

  function column(row, side, query) {
    const rank = unpacked(side).ranks[query];
    const gallery = set().gallery[1 - now.direction];
    const found = best(side, query);
    const lowest = Math.min(...found.map((it) => it.share), 1);
    const highest = Math.max(...found.map((it) => it.share), 0);
    const line = (it) => {
      const bar = element("span", { class: "bar" });
      // From a fifth of the width for the last of the eight to all of it for the first.
      bar.style.width = `${20 + 80 * (highest > lowest ? (it.share - lowest) / (highest - lowest) : 1)}%`;
      const sign = it.own ? "✓ its own" : "✗ not its own";
      return element("li", { class: it.own ? "own" : "other" }, foundPicture(it.item),
        element("span", { class: "text" }, ...lines(called(it.item)),
          element("span", { class: "score" }, element("span", { class: "sign" }, sign), ` score ${it.score.toPrecision(4)}`), bar));
    };
    const label = rank === 0 ? "nothing of its own in the gallery" : `best own item: rank ${show(rank)} of ${gallery}`;
    return element("section", { "aria-label": row.name }, element("h4", {}, row.name, element("small", {}, label)), looks(row, query),
      element("ol", { class: "found" }, ...found.map(line)));
  }

  // ---- What words do ----

  const LOOKED = 168; // The side of the picture that is painted.
  let painters = []; // One a row: a word that is pointed at is painted in both.

  /** The words of a caption of the sample: where each looked in the caption's own image, and what the score is without it. */
  function looks(row, query) {
    const at = caption(query);
    if (at === null || !row.looks) return null;
    if (row.looks.absent) return element("p", { class: "files" }, `Its words were not looked into: ${row.looks.absent}`);
    const { words, known, boxes, image } = set().sample[at];
    const { score, without, maps } = row.looks.captions[at];
    const painted = maps.length > 0 ? canvas(image, boxes, maps[0].regions) : null;
    const said = element("p", { class: "files", role: "status" });
    const worth = (word) => score - without[word];
    let map = 0;
    let chosen = without.reduce((best, _, word) => worth(word) > worth(best) ? word : best, 0);
    const buttons = words.map((word, place) => {
      const sign = worth(place) < 0 ? "−" : worth(place) > 0 ? "+" : "";
      const button = element("button", { type: "button", class: worth(place) < 0 ? "against" : "for" }, word,
        element("small", {}, `${sign}${worth(place) === 0 ? 0 : Math.abs(worth(place)).toPrecision(2)}${known[place] ? "" : ", not in training"}`));
      for (const kind of ["click", "mouseenter", "focus"]) button.addEventListener(kind, () => painters.forEach((paint) => paint(place)));
      return button;
    });
    const paint = (word) => {
      chosen = word;
      buttons.forEach((button, place) => button.setAttribute("aria-pressed", `${place === word}`));
      const weights = maps.length > 0 ? looked(maps[map], word, words.length) : null;
      const most = weights ? weights.indexOf(Math.max(...weights)) : 0;
      said.textContent = `“${words[word]}”: ${without[word].toPrecision(4)} without it`
        + (weights ? `; most at region ${most + 1} of ${weights.length}, weight ${weights[most].toFixed(2)} (full colour: ${maps[map].most.toFixed(2)})` : "");
      if (painted) painted.fill(weights ?? [], maps[map].most);
    };
    const steps = maps.length > 1 ? element("select", { "aria-label": `what ${row.name} looked at` }) : null;
    if (steps) {
      options(steps, maps.map((it, place) => [place, it.title]), 0);
      steps.addEventListener("change", (event) => {
        map = Number(event.target.value);
        paint(chosen);
      });
    }
    painters.push(paint);
    paint(chosen);
    const how = maps.length > 0 ? (steps ? "" : `${maps[0].title[0].toUpperCase()}${maps[0].title.slice(1)}. `) : row.looks.pairwise
      ? "It compares words with regions and has no weights to show. " : "It compares whole vectors, in one product. ";
    return element("div", { class: "looks" },
      element("p", { class: "files" }, `With the caption's own image: score ${score.toPrecision(4)}. ${how}Below each word what it adds: that score less the one without it.`),
      steps, painted?.box, element("div", { class: "words" }, ...buttons), said);
  }

  /** The weights of a word over the regions; nothing where the text has other vectors than words. */
  function looked(map, word, count) {
    map.open ??= bytes(map.weights);
    const rows = map.words.length;
    const at = rows === count + 2 ? word + 1 : rows === count ? word : rows === 1 ? 0 : null;
    if (at === null) return null;
    return Array.from(map.open.subarray(at * map.regions, (at + 1) * map.regions), (it) => it / 255 * map.most);
  }

  /** The regions of an image: over its picture where their places are known, else side by side. */
  function canvas(image, boxes, count) {
    const placed = boxes && boxes.length === count;
    const regions = Array.from({ length: count }, (_, at) => element("span", { class: "region", title: `region ${at + 1}` }));
    if (placed) {
      regions.forEach((region, at) => {
        const [left, top, right, bottom] = boxes[at].map((it) => 100 * it);
        Object.assign(region.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
      });
    }
    const box = element("div", { class: placed ? "painted" : "painted strip" }, placed ? picture(set().asked, image, LOOKED) : null, ...regions);
    const fill = (weights, most) => regions.forEach((region, at) => {
      region.style.opacity = `${most > 0 ? 0.8 * (weights[at] ?? 0) / most : 0}`;
    });
    return { box, fill };
  }

  // ---- Rank against rank ----

  const PLOT = { width: 640, height: 520, left: 56, right: 16, top: 16, bottom: 46 };

  function axis(gallery) {
    const most = Math.log10(Math.max(gallery, 2));
    return {
      x: (rank) => PLOT.left + Math.log10(rank) / most * (PLOT.width - PLOT.left - PLOT.right),
      y: (rank) => PLOT.height - PLOT.bottom - Math.log10(rank) / most * (PLOT.height - PLOT.top - PLOT.bottom),
    };
  }

  /** Where a point stands: many share a rank, so that each is moved a little, always the same way. */
  function place(query, [a, b], scale) {
    const angle = query * 2.399963;
    const away = 5 * Math.sqrt((query * 7 % 31) / 31);
    return [scale.x(a[query]) + away * Math.cos(angle), scale.y(b[query]) + away * Math.sin(angle)];
  }

  function plot() {
    const gallery = set().gallery[1 - now.direction];
    const scale = axis(gallery);
    const both = ranks();
    const [a, b] = rows().map((row) => row.name);
    const picture = svg("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, "aria-hidden": "true" });
    for (let tick = 1; tick <= gallery; tick *= 10) {
      const [x, y] = [scale.x(tick), scale.y(tick)];
      picture.append(
        svg("line", { x1: x, x2: x, y1: PLOT.top, y2: PLOT.height - PLOT.bottom }),
        svg("line", { x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: y, y2: y }),
        svg("text", { x, y: PLOT.height - PLOT.bottom + 18, "text-anchor": "middle" }, tick),
        svg("text", { x: PLOT.left - 10, y: y + 4, "text-anchor": "end" }, tick));
    }
    picture.append(
      svg("line", { x1: scale.x(1), y1: scale.y(1), x2: scale.x(gallery), y2: scale.y(gallery) }),
      svg("text", { x: (PLOT.left + PLOT.width) / 2, y: PLOT.height - 8, "text-anchor": "middle" }, `rank by ${a}`),
      svg("text", { x: 14, y: PLOT.height / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${PLOT.height / 2})` }, `rank by ${b}`));
    const count = set().queries[now.direction];
    for (let query = 0; query < count; query += 1) {
      if (!both[0][query] || !both[1][query]) continue;
      const [cx, cy] = place(query, both, scale);
      const point = svg("circle", { cx, cy, r: 3.5, "data-query": query });
      point.append(svg("title", {}, `${asks(query)}: ${show(both[0][query])} and ${show(both[1][query])}`));
      picture.append(point);
    }
    picture.addEventListener("click", (event) => {
      const query = event.target.getAttribute?.("data-query");
      if (query === null || query === undefined) return;
      if (!listed.includes(Number(query))) reset();
      choose(Number(query));
    });
    by("plot").replaceChildren(picture);
    by("plot-about").textContent =
      `Each point is a query: the rank of its best own item by ${a}, to the right, and by ${b}, upwards; 1 is best, both axes are logarithmic. `
      + "Below the diagonal the second row is better. Points are moved a little, so that none hides another; a click shows the query.";
    points();
  }

  function points() {
    const inside = new Set(listed);
    for (const point of by("plot").querySelectorAll("circle")) {
      const query = Number(point.getAttribute("data-query"));
      const kind = query === now.query ? "chosen" : inside.has(query) ? "" : "faded";
      if (point.getAttribute("class") !== kind) point.setAttribute("class", kind);
      if (kind === "chosen") {
        point.setAttribute("r", 6.5);
        point.parentNode.append(point);
      } else {
        point.setAttribute("r", 3.5);
      }
    }
  }

  // ---- Hubs and classes ----

  function hubs() {
    const count = set().queries[now.direction];
    const one = (row, side) => {
      const times = new Map();
      for (let query = 0; query < count; query += 1) {
        for (const { item } of best(side, query)) times.set(item, (times.get(item) ?? 0) + 1);
      }
      const gallery = set().gallery[1 - now.direction];
      const first = [...times].sort((x, y) => y[1] - x[1] || x[0] - y[0]).slice(0, 6);
      const line = ([item, lists]) => element("li", {}, foundPicture(item, 40), element("span", { class: "text" }, ...lines(called(item)),
        element("span", { class: "score" }, `in ${lists} of ${count} lists`)));
      return element("section", {}, element("h4", {}, row.name, element("small", {}, `${gallery - times.size} of ${gallery} items stand in no list`)),
        element("ol", { class: "found" }, ...first.map(line)));
    };
    by("hubs").replaceChildren(...rows().map((row, at) => one(row, sides()[at])));
  }

  function classTable() {
    const count = set().queries[now.direction];
    const groups = new Map();
    for (let query = 0; query < count; query += 1) {
      for (const it of classesOf(query)) {
        if (!groups.has(it)) groups.set(it, []);
        groups.get(it).push(query);
      }
    }
    by("by-class").hidden = groups.size === 0;
    by("classed").hidden = groups.size === 0;
    const sorted = [...groups.keys()].sort((a, b) => a - b);
    const title = (it) => set().classes[it] ?? `class ${it}`;
    options(by("class"), [["", "all"], ...sorted.map((it) => [it, title(it)])], now.class);
    const summary = (all, queries) => {
      const of = queries.map((query) => all[query] || Infinity).sort((x, y) => x - y);
      const first = 100 * of.filter((rank) => rank === 1).length / of.length;
      const half = of.length / 2;
      const median = (of[Math.ceil(half) - 1] + of[Math.floor(half)]) / 2;
      return [`${first.toFixed(0)} %`, Number.isFinite(median) ? show(median) : "–"];
    };
    const cell = (tag, text) => element(tag, tag === "th" ? { scope: "row" } : {}, text);
    const heads = rows().flatMap((row) => [`${row.name}: first`, "median rank"]);
    const head = element("tr", {}, ...["Class", "queries", ...heads].map((text) => element("th", { scope: "col" }, text)));
    const body = sorted.map((it) => element("tr", {}, cell("th", title(it)), cell("td", `${groups.get(it).length}`),
      ...ranks().flatMap((all) => summary(all, groups.get(it))).map((text) => cell("td", text))));
    by("classes").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
  }

  // ---- Methods ----

  function methods() {
    const seen = new Set();
    const one = (row) => {
      const card = data.cards[row.method];
      const parts = [element("h3", {}, row.name)];
      if (row.remark) parts.push(element("p", {}, row.remark));
      if (!card) {
        parts.push(element("p", {}, `Method ${row.method}, of another program, or made of other rows.`));
        return element("section", {}, ...parts);
      }
      if (seen.has(row.method)) {
        parts.push(element("p", {}, `As above: ${card.label}, with other settings.`));
        return element("section", {}, ...parts);
      }
      seen.add(row.method);
      const link = (text, href) => href ? element("a", { href, rel: "noreferrer" }, text) : text;
      parts.push(element("p", {}, `${card.cited} `, link(card.identifier, card.paper)));
      if (card.code.length > 0) {
        parts.push(element("p", {}, "Code read: ", ...card.code.flatMap((it, at) => [at ? ", " : "", link(it.name, it.address)])));
      }
      if (card.path) {
        parts.push(element("p", {}, "Source: ", element("a", { href: `../${card.path}` }, `${card.path}`),
          `, whose head has these equations from line ${card.line} on; their numbers stand again beside the lines that compute them:`),
          element("div", { class: "equations", tabindex: "0", role: "region", "aria-label": `equations of ${card.label}` }, card.equations));
      }
      return element("section", {}, ...parts);
    };
    by("methods").replaceChildren(...[...new Set(rows())].map(one));
  }

  // ---- Everything ----

  function controls() {
    options(by("set"), data.sets.map((it, at) => [at, `${it.title} (${it.dataset})`]), now.set);
    const names = set().rows.map((row, at) => [at, row.name]);
    options(by("first"), names, now.first);
    options(by("second"), names, now.second);
    by("direction").value = `${now.direction}`;
    by("filter").querySelector("[value=words]").hidden = now.direction === IMAGES || !set().sample;
    by("filter").value = now.filter;
    by("search").value = now.search;
    const { attribution, caveat, absent } = set();
    by("about").textContent = absent
      ? `Captions and pictures are not at hand: ${absent}. Positions stand in their place.`
      : "What two rows of the table answer to one query, from the recording: ranks, scores, and where they differ.";
    const left = data.leftOut.length > 0 ? `Left out, so that the page stays small: ${data.leftOut.join("; ")}. ` : "";
    by("notes").textContent = [
      `Profile ${data.profile}, begun ${data.started}. One seed a row. Equal scores share the mean of their places, so that a rank may be a half. `
        + "Scores are rounded to 1/65535 of a row's range, and are comparable within a row alone.",
      left, caveat, attribution].filter(Boolean).join(" ");
  }

  function all() {
    controls();
    classTable();
    list();
    answer();
    plot();
    hubs();
    methods();
    remember();
  }

  function some() {
    list();
    answer();
    points();
    remember();
  }

  /** No search and no filter. */
  function reset() {
    Object.assign(now, { filter: "all", class: "", search: "" });
    by("filter").value = "all";
    by("class").value = "";
    by("search").value = "";
    list();
  }

  function remember() {
    const { set: at, direction, first, second, filter, query, search } = now;
    const state = new URLSearchParams({ set: at, direction, first, second, filter, query, search });
    try {
      history.replaceState(null, "", `#${state}`);
    } catch {
      // A page that stands in another may not say where it is.
    }
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    const number = (key, count, otherwise) => {
      const value = Number(state.get(key) ?? NaN);
      return Number.isInteger(value) && value >= 0 && value < count ? value : otherwise;
    };
    now.set = number("set", data.sets.length, 0);
    now.direction = number("direction", 2, 1);
    now.first = number("first", set().rows.length, 0);
    now.second = number("second", set().rows.length, Math.min(1, set().rows.length - 1));
    now.query = number("query", set().queries[now.direction], 0);
    now.filter = ["first", "second", "fail", "ties", "words"].includes(state.get("filter")) ? state.get("filter") : "all";
    now.search = state.get("search") ?? "";
  }

  by("set").addEventListener("change", (event) => {
    Object.assign(now, { set: Number(event.target.value), first: 0, query: 0, filter: "all", class: "", search: "" });
    now.second = Math.min(1, set().rows.length - 1);
    all();
  });
  for (const key of ["direction", "first", "second"]) {
    by(key).addEventListener("change", (event) => {
      now[key] = Number(event.target.value);
      if (key === "direction") Object.assign(now, { query: 0, class: "", search: "" });
      all();
    });
  }
  for (const key of ["filter", "class"]) {
    by(key).addEventListener("change", (event) => {
      now[key] = event.target.value;
      some();
    });
  }
  by("search").addEventListener("input", (event) => {
    now.search = event.target.value;
    some();
  });
  by("controls").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const on = document.activeElement;
    const typing = on instanceof HTMLInputElement || on instanceof HTMLSelectElement;
    const listing = on === by("list") || on === by("plot");
    if (event.key === "/" && !(on instanceof HTMLInputElement)) {
      by("search").focus();
    } else if (event.key === "Enter" && on === by("search")) {
      if (listed.length > 0) choose(listed[0]);
      by("list").focus();
    } else if (event.key === "Enter" && listing) {
      by("answer").focus();
    } else if (event.key === "Escape" && on !== by("list")) {
      by("list").focus();
    } else if (event.key === "ArrowDown" && (listing || !typing && on === document.body)) {
      step(1);
    } else if (event.key === "ArrowUp" && (listing || !typing && on === document.body)) {
      step(-1);
    } else if (event.key === "ArrowRight" && on === by("plot")) {
      step(1);
    } else if (event.key === "ArrowLeft" && on === by("plot")) {
      step(-1);
    } else if (event.key === "Home" && listing) {
      if (listed.length > 0) choose(listed[0]);
    } else if (event.key === "End" && listing) {
      if (listed.length > 0) choose(listed[listed.length - 1]);
    } else {
      return;
    }
    event.preventDefault();
  });

  recall();
  all();
})();
