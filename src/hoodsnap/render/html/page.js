"use strict";
(() => {
  const servers = JSON.parse(document.getElementById("data").textContent);
  const MARKS = { error: "✗", warning: "!", note: "·", expected: "·", agrees: "✓", undecided: "?" };
  const byId = (id) => document.getElementById(id);

  // Text is only ever set as text, so nothing in a bundle can become markup.
  function make(name, properties, ...inside) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties || {})) {
      if (key === "class") made.className = value;
      else if (value !== undefined && value !== null) made.setAttribute(key, value);
    }
    made.append(...inside.filter((one) => one !== null && one !== ""));
    return made;
  }

  function draw(name, properties, ...inside) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(properties || {})) made.setAttribute(key, value);
    made.append(...inside);
    return made;
  }

  const badge = (verdict) => make("span", { class: `badge ${verdict}`, "aria-hidden": "true" }, MARKS[verdict]);

  // Packed data is unpacked once, when it is first needed.
  const unpacked = new Map();
  function unpack(id) {
    if (!unpacked.has(id)) {
      unpacked.set(id, (async () => {
        const bytes = Uint8Array.from(atob(byId(id).textContent), (char) => char.charCodeAt(0));
        const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
        return JSON.parse(await new Response(stream).text());
      })());
    }
    return unpacked.get(id);
  }

  // ---- the list of servers
  const list = byId("list");
  const links = servers.map((server, at) => {
    const sub = [server.state, server.host].filter(Boolean).join(" · ");
    const link = make("a", { href: `#server-${at}` }, badge(server.verdict),
      make("span", { class: "name" }, server.name, make("span", { class: "hidden" }, ` (${server.verdict})`)),
      make("span", { class: "sub" }, sub || "no record in nova"));
    list.append(make("li", null, link));
    return link;
  });
  const texts = servers.map((one) => [one.name, one.uuid, one.host, one.text].join("\n").toLowerCase());
  for (const state of [...new Set(servers.map((one) => one.state))].sort()) {
    if (state) byId("by-state").append(make("option", { value: state }, state));
  }

  function filter() {
    const wanted = byId("search").value.trim().toLowerCase();
    const verdict = byId("by-verdict").value;
    const state = byId("by-state").value;
    let shown = 0;
    servers.forEach((server, at) => {
      const fits = (!wanted || texts[at].includes(wanted)) && (!state || server.state === state) &&
        (!verdict || server.verdict === verdict || (verdict === "found" && server.findings.length > 0));
      links[at].parentNode.hidden = !fits;
      shown += fits;
    });
    const all = servers.length;
    byId("count").textContent = shown === all ? `${all} server${all === 1 ? "" : "s"}` : `${shown} of ${all} servers`;
  }
  for (const id of ["search", "by-verdict", "by-state"]) byId(id).addEventListener("input", filter);

  function walkFocus(event, items, back, forth) {
    const at = items.indexOf(document.activeElement);
    const steps = { [back]: at - 1, [forth]: at + 1, Home: 0, End: items.length - 1 };
    if (at < 0 || !(event.key in steps)) return;
    event.preventDefault();
    const next = items[Math.min(Math.max(steps[event.key], 0), items.length - 1)];
    next.focus();
  }
  list.addEventListener("keydown", (event) =>
    walkFocus(event, [...list.querySelectorAll("li:not([hidden]) a")], "ArrowUp", "ArrowDown"));
  byId("search").addEventListener("keydown", (event) => {
    const first = list.querySelector("li:not([hidden]) a[href^='#server-']");
    if (event.key === "ArrowDown" && first) { event.preventDefault(); first.focus(); }
    if (event.key === "Enter" && first) location.hash = first.hash;
  });

  // ---- one server
  function row(server) {
    const items = server.boxes.map((box, at) => {
      const broken = server.breaks.find((one) => one.right === at);
      const link = make("span", { class: `link${broken ? ` broken ${broken.severity}` : ""}`, "aria-hidden": "true" },
        broken ? make("b", null, "✗") : "");
      const button = make("button", { type: "button", class: `box ${box.state} ${box.severity}` },
        make("span", { class: "layer" }, box.layer),
        make("span", { class: "most" }, box.value),
        ...box.wrong.map((text) => make("span", { class: "wrong" }, text)));
      button.addEventListener("click", () => show(box.answers, box.wrong, `${box.layer}: ${box.noun}`, box.value));
      return make("li", null, link, button);
    });
    const made = make("ol", { class: "row", "aria-label": `The layers of ${server.name}, from nova down to the host` }, ...items);
    made.addEventListener("keydown", (event) => {
      const boxes = [...made.querySelectorAll("button")];
      walkFocus(event, boxes, "ArrowLeft", "ArrowRight");
    });
    return made;
  }

  function breaks(server) {
    const side = (box, said) => [make("strong", null, box.layer), " ", make("code", null, said.join(", "))];
    return make("ul", { class: "breaks" }, ...server.breaks.map((one) =>
      make("li", { class: one.severity },
        ...side(server.boxes[one.left], one.values[0]), make("span", { class: "apart", role: "img", "aria-label": "differs from" }, "≠"),
        ...side(server.boxes[one.right], one.values[1]))));
  }

  function lines(text, room, most) {
    const found = [];
    for (let rest = text; rest; ) {
      if (found.length === most - 1 && rest.length > room) { found.push(rest.slice(0, room - 1) + "…"); break; }
      let end = rest.length <= room ? rest.length : rest.lastIndexOf(" ", room);
      if (end <= 0) end = room;
      found.push(rest.slice(0, end));
      rest = rest.slice(end).trimStart();
    }
    return found;
  }

  const GAP = 36;
  function picture(chains, label, width) {
    const upright = width < 520;
    const fit = upright ? 1 : Math.max(2, Math.floor((width + GAP) / (158 + GAP)));
    const long = Math.max(...chains.map((chain) => chain.length));
    const size = upright ? width : Math.min(220, (width - GAP * (Math.min(fit, long) - 1)) / Math.min(fit, long));
    const room = Math.floor((size - 18) / 7.3);
    const svg = draw("svg", { role: "group", "aria-label": label });
    let top = 2;
    for (const chain of chains) {
      const told = chain.map(([kind, name, details]) => ({ kind, name: lines(name, room, 3), details: lines(details, Math.floor(room * 1.15), 2) }));
      for (let start = 0; start < chain.length; start += fit) {
        const part = told.slice(start, start + fit);
        const height = Math.max(...part.map((one) => 30 + 15 * one.name.length + 14 * one.details.length));
        part.forEach((one, at) => {
          const number = start + at;
          const left = at * (size + GAP);
          if (number) svg.append(...arrow(at, left, top, height, upright, size));
          svg.append(station(chain[number], one, left, top, size, height));
        });
        top += height + (upright || start + fit < chain.length ? 26 : 0);
      }
      top += upright ? 6 : 22;
    }
    const height = Math.max(top - 18, 10);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    return make("div", { class: "picture" }, svg);
  }

  function station(raw, told, left, top, width, height) {
    const [kind, name, details, state, whole, severity] = raw;
    const box = draw("g", { class: `${state} ${severity}`, role: "img", "aria-label": [kind, whole || name, details].filter(Boolean).join(", ") },
      draw("title", null, [whole || name, details].filter(Boolean).join("\n")),
      draw("rect", { x: left + 1, y: top, width: width - 2, height, rx: 7 }));
    let y = top + 17;
    const put = (text, style) => box.append(draw("text", { x: left + 10, y, class: style }, text));
    put(kind, "kind");
    for (const line of told.name) { y += 15; put(line, "label"); }
    for (const line of told.details) { y += 14; put(line, "details"); }
    return box;
  }

  function arrow(at, left, top, height, upright, size) {
    if (upright) {
      return [draw("path", { d: `M24 ${top - 26} V${top - 6}` }), draw("path", { class: "tip", d: `M19 ${top - 8} h10 l-5 7 z` })];
    }
    const y = top + height / 2;
    if (at) {
      return [draw("path", { d: `M${left - GAP} ${y} H${left - 7}` }), draw("path", { class: "tip", d: `M${left - 8} ${y - 5} v10 l7 -5 z` })];
    }
    return [draw("path", { d: `M${size / 2} ${top - 26} V${top - 6}` }), draw("path", { class: "tip", d: `M${size / 2 - 5} ${top - 8} h10 l-5 7 z` })];
  }

  function sheet(server, width, level) {
    const part = (title, inside) => [make(`h${level + 1}`, null, title), inside];
    const copy = make("button", { type: "button", class: "copy", "aria-label": "Copy the UUID" }, "Copy");
    copy.addEventListener("click", () => copied(copy, server.uuid));
    const made = [make("div", { class: "server-head" },
      make("div", { class: `verdict ${server.verdict}` },
        make(`h${level}`, null, make("span", { class: "mark", "aria-hidden": "true" }, MARKS[server.verdict]), ` ${server.name}`),
        make("p", null, server.text)),
      make("p", { class: "facts" }, make("span", null, make("code", null, server.uuid), " ", copy),
        server.host ? make("span", null, `on host ${server.host}`) : make("span", null, "on no host")))];
    if (server.boxes.length) made.push(row(server));
    if (server.breaks.length) made.push(breaks(server));
    const rest = [];
    if (server.disks.length) rest.push(...part("Disks", picture(server.disks, `The disks of ${server.name}`, width)));
    if (server.ports.length) rest.push(...part("Network", picture(server.ports, `The network path of ${server.name}`, width)));
    rest.push(...part("Layer by layer", make("dl", { class: "walk" }, ...server.boxes.flatMap((box) =>
      box.lines.map((line, at) => [make("dt", null, at ? "" : `${box.layer}: ${box.noun}`), make("dd", null, (box.state === "unheard" ? "not collected: " : "") + line)]).flat()))));
    if (server.hold.length) {
      rest.push(...part("Commands on hold", make("div", null,
        make("p", null, "The checks in parentheses could not be decided. Do not run these commands before they are."),
        make("ul", null, ...server.hold.map((text) => make("li", null, make("code", null, text)))))));
    }
    return [made, rest];
  }

  // ---- what is shown
  const articles = [...document.querySelectorAll("article.finding")];
  let shown = null;
  const room = () => Math.max(240, byId("main").clientWidth - 76);

  const OLD = "This browser can't unpack the data in this page; a newer one can.";

  async function showServer(at) {
    shown = at;
    let details;
    try { details = (await unpack("details"))[at]; } catch { details = { boxes: [], breaks: [], disks: [], ports: [], hold: [OLD] }; }
    if (shown !== at) return;
    const server = { ...servers[at], ...details };
    const [head, rest] = sheet(server, room(), 1);
    byId("server").setAttribute("aria-label", `Server ${server.name}`);
    byId("server").replaceChildren(...head);
    byId("server-rest").replaceChildren(...rest);
    swap(true);
    const wanted = new Set(server.findings);
    articles.forEach((article, number) => { article.hidden = !wanted.has(number); });
    if (byId("findings")) byId("findings").hidden = wanted.size === 0;
  }

  function swap(one) {
    for (const id of ["overview", "overview-rest"]) byId(id).hidden = one;
    for (const id of ["server", "server-rest"]) byId(id).hidden = !one;
  }

  function showOverview() {
    shown = null;
    swap(false);
    articles.forEach((article) => { article.hidden = false; });
    if (byId("findings")) byId("findings").hidden = false;
  }

  async function route() {
    const [, kind, number] = /^#(server|finding)-(\d+)$/.exec(location.hash) || [];
    const at = Number(number);
    if (kind === "server" && at < servers.length) {
      await showServer(at);
      // In a narrow window the list stands above the server.
      if (window.innerWidth > 760) window.scrollTo(0, 0); else byId("main").scrollIntoView();
      byId("said").textContent = `${servers[at].name}: ${servers[at].text}`;
    } else {
      const finding = kind === "finding" ? byId(`finding-${at}`) : null;
      if (!finding || finding.hidden || shown === null) showOverview();
      if (finding) { finding.scrollIntoView(); finding.focus({ preventScroll: true }); }
      else if (location.hash !== "#main") window.scrollTo(0, 0);
    }
    for (const link of list.querySelectorAll("a")) {
      const current = shown === null ? link.classList.contains("home") : link === links[shown];
      if (current) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  // ---- the recorded answers
  async function show(numbers, said, about, value) {
    const dialog = byId("answer");
    byId("answer-title").textContent = about;
    for (const id of ["answer-about", "answer-query", "answer-note"]) byId(id).textContent = "";
    byId("answer-text").textContent = numbers.length ? "…" : value;
    byId("answer-others").replaceChildren();
    byId("answer-question").hidden = !numbers.length;
    if (!dialog.open) dialog.showModal();
    if (!numbers.length) { byId("answer-note").textContent = "No recorded answer belongs to this layer alone."; return; }
    let all;
    try { all = await unpack("answers"); } catch {
      byId("answer-text").textContent = OLD;
      return;
    }
    const buttons = numbers.map((number) => {
      const button = make("button", { type: "button" }, all[number].query.slice(0, 90));
      button.addEventListener("click", () => put(number));
      return button;
    });
    if (numbers.length > 1) byId("answer-others").replaceChildren(...buttons.map((one) => make("li", null, one)));
    function put(number) {
      const one = all[number];
      buttons.forEach((button, at) => button.toggleAttribute("aria-current", numbers[at] === number));
      byId("answer-about").textContent = `${one.layer} on ${one.host}, ${one.at}`;
      byId("answer-query").textContent = one.query;
      byId("answer-note").textContent = one.note;
      byId("answer-text").className = one.failed ? "failed" : "";
      marked(byId("answer-text"), one.text, said);
    }
    const holds = (wanted) => numbers.find((number) => wanted.some((text) => all[number].text.includes(text)));
    put(holds(values(said)) ?? holds(names(said)) ?? numbers[0]);
  }

  const values = (said) => said.map((text) => text.slice(text.indexOf(" = ") + 3))
    .flatMap((text) => text.split(", ")).filter((text) => text.length > 2);

  const names = (said) => said.map((text) => text.slice(0, text.indexOf(" = ")).trim()).filter((text) => text.length > 2);

  // Mark the values of evidence in an answer; for values that were derived, the fields they have the name of.
  function marked(place, text, said) {
    const parts = [];
    let start = 0;
    const found = values(said).filter((one) => text.includes(one));
    const wanted = found.length ? found : names(said);
    while (parts.length < 60) {
      const next = wanted.map((one) => [text.indexOf(one, start), one]).filter(([at]) => at >= 0).sort((a, b) => a[0] - b[0])[0];
      if (!next) break;
      parts.push(text.slice(start, next[0]), make("mark", null, next[1]));
      start = next[0] + next[1].length;
    }
    place.replaceChildren(...parts, text.slice(start));
    place.scrollTop = 0;
    const first = place.querySelector("mark");
    if (first) place.scrollTop = Math.max(0, first.offsetTop - place.offsetTop - 80);
  }

  byId("answer-close").addEventListener("click", () => byId("answer").close());
  byId("answer").addEventListener("click", (event) => { if (event.target === byId("answer")) byId("answer").close(); });

  // ---- copying
  async function copied(button, text) {
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      const area = make("textarea", { class: "hidden" });
      area.value = text;
      button.after(area);
      area.select();
      button.textContent = document.execCommand("copy") ? "Copied" : "Select it and press Ctrl+C";
      area.remove();
    }
    byId("said").textContent = button.textContent;
    setTimeout(() => { button.textContent = label; }, 1500);
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.copy !== undefined) copied(button, button.parentNode.querySelector("code").textContent);
    if (button.dataset.answer !== undefined) {
      const about = button.closest(".evidence > div").querySelector("dt").textContent.trim().replace(/\s+/g, " ");
      show([Number(button.dataset.answer)], [...button.closest("dd").querySelectorAll(".value")].map((one) => one.textContent), about, "");
    }
  });

  // ---- on paper: everything that has findings, with its pictures
  const PRINTED = 40;
  let opened = [];
  let details = null;
  async function prepare() { if (servers.some((one) => one.findings.length)) details = await unpack("details"); }
  function toPaper() {
    if (document.querySelector(".printed-server")) return;
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = true;
    const numbers = shown === null ? servers.map((_, at) => at).filter((at) => servers[at].findings.length).slice(0, PRINTED) : [];
    for (const at of details ? numbers : []) byId("main").append(make("section", { class: "printed-server" }, ...sheet({ ...servers[at], ...details[at] }, 680, 2).flat()));
  }
  function fromPaper() {
    for (const one of opened) one.open = false;
    for (const one of document.querySelectorAll(".printed-server")) one.remove();
  }
  window.addEventListener("beforeprint", toPaper);
  window.addEventListener("afterprint", fromPaper);

  let waiting = 0;
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (shown !== null) showServer(shown); }, 150);
  });
  window.addEventListener("hashchange", route);
  document.documentElement.classList.add("scripted");
  byId("servers").hidden = false;
  for (const button of document.querySelectorAll("[data-answer]")) button.hidden = false;
  filter();
  route();
  setTimeout(() => prepare().catch(() => null), 1000);
})();
