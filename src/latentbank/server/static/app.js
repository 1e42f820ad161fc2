// The page of a latentbank server. No framework and no build step; talks to this server only.

const $ = (id) => document.getElementById(id);
const state = { bank: "", turns: [], next: null, words: "", aborter: null };
const enc = encodeURIComponent;

// ---- talking to the server

class Failure extends Error {
  constructor(status, error) {
    super(error?.message || `The server answered ${status}.`);
    this.status = status;
    this.code = error?.code;
  }
}

async function call(path, options = {}) {
  const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}) };
  const token = sessionStorage.getItem("token");
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401 && (await askToken())) return call(path, options);
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Failure(response.status, said.error);
  }
  return response;
}

const get = async (path) => (await call(path)).json();
const post = async (path, body) =>
  (await call(path, { method: "POST", body: JSON.stringify(body) })).json();
const remove = async (path) => (await call(path, { method: "DELETE" })).json();
const bankPath = (rest = "") => `/v1/banks/${enc(state.bank)}${rest}`;

// ---- small helpers

function make(name, values = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(values)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function bytes(size) {
  if (size === null || size === undefined) return "no limit";
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (size < 1024 || unit === "GiB") return `${unit === "B" ? size : size.toFixed(1)} ${unit}`;
    size /= 1024;
  }
}

const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

let hiding = 0;
function notice(text, failed = false) {
  const place = $("notice");
  place.textContent = text;
  place.hidden = !text;
  place.classList.toggle("failed", failed);
  clearTimeout(hiding);
  if (text && !failed) hiding = setTimeout(() => (place.hidden = true), 8000);
}

const guarded = (work) => async (event) => {
  event?.preventDefault?.();
  try {
    await work(event);
  } catch (error) {
    if (error.name !== "AbortError") notice(error.message, true);
  }
};

function dialog(title, body, buttons) {
  const box = $("dialog");
  $("dialog-title").textContent = title;
  $("dialog-body").replaceChildren(...[body].flat());
  $("dialog-buttons").replaceChildren(
    ...buttons.map(([value, text, kind]) => make("button", { value, className: kind || "" }, text)),
  );
  box.returnValue = "";
  box.showModal();
  return new Promise((done) =>
    box.addEventListener("close", () => done(box.returnValue), { once: true }),
  );
}

async function askToken() {
  const field = make("input", { type: "password", autocomplete: "off", required: true });
  const said = await dialog("This server needs a token", make("label", {}, "Token ", field), [
    ["", "Cancel"],
    ["ok", "Use it", "main"],
  ]);
  if (said !== "ok" || !field.value) return false;
  sessionStorage.setItem("token", field.value.trim());
  return true;
}

// ---- banks

async function loadBanks(wanted) {
  const names = (await get("/v1/banks")).data.map((one) => one.name);
  $("banks").replaceChildren(...names.map((name) => make("option", { value: name }, name)));
  state.bank = names.includes(wanted) ? wanted : names[0] || "";
  $("banks").value = state.bank;
  $("send").disabled = !state.bank;
  if (!state.bank) notice("There is no bank yet; make one with “New bank”.");
  await refresh();
}

async function newBank() {
  const name = make("input", { required: true, pattern: "[A-Za-z0-9][A-Za-z0-9_.\\-]*", maxLength: 64 });
  const budget = make("input", { value: "8MiB", required: true });
  const said = await dialog(
    "New bank",
    [make("label", {}, "Name ", name), make("label", {}, "Budget ", budget)],
    [["", "Cancel"], ["ok", "Make it", "main"]],
  );
  if (said !== "ok") return;
  await post("/v1/banks", { name: name.value, budget: budget.value });
  notice(`The bank ${name.value} is there.`);
  await loadBanks(name.value);
}

async function refresh() {
  if (!state.bank) {
    $("rows").replaceChildren();
    return;
  }
  await Promise.all([showDocuments(false), showBank()]);
}

async function showBank() {
  const [stats, events] = await Promise.all([get(bankPath()), get(bankPath("/events?limit=100"))]);
  $("bank-name").textContent = `${stats.name}: ${count(stats.documents, "document")}`;
  const share = stats.budget_bytes ? Math.min(1, stats.bytes / stats.budget_bytes) : 0;
  const bar = $("budget");
  bar.firstElementChild.style.width = `${100 * share}%`;
  bar.classList.toggle("full", share > 0.9);
  bar.setAttribute("aria-valuemin", "0");
  bar.setAttribute("aria-valuemax", "100");
  bar.setAttribute("aria-valuenow", (100 * share).toFixed(0));
  $("budget-text").textContent = stats.budget_bytes
    ? `${bytes(stats.bytes)} of ${bytes(stats.budget_bytes)} (${(100 * share).toFixed(0)} %)`
    : `${bytes(stats.bytes)}, no budget`;
  const levels = Object.entries(stats.levels);
  $("levels").replaceChildren(
    ...levels.map(([name, one], at) => {
      const part = make("span", { className: `level${Math.min(at, 4)}`, title: name });
      part.style.flexGrow = one.documents;
      return part;
    }),
  );
  $("legend").replaceChildren(
    ...levels.map(([name, one], at) =>
      make("li", {}, make("span", { className: `key level${Math.min(at, 4)}` }),
        `${name}: ${count(one.documents, "document")}, ${bytes(one.bytes)}`),
    ),
  );
  $("events").replaceChildren(
    ...events.data.map((one) => {
      const names = one.ids.slice(0, 5).join(", ") + (one.ids.length > 5 ? ", …" : "");
      const when = new Date(one.time).toLocaleTimeString();
      return make("li", {}, `${when}  ${one.kind}: ${count(one.count, "document")}${names ? ` (${names})` : ""}`);
    }),
  );
  if (!events.data.length) $("events").append(make("li", { className: "quiet" }, "Nothing since the server opened the bank."));
  const facts = { method: stats.method, model: stats.model, policy: stats.policy, ledger: stats.ledger, entries: stats.entries, "root hash": stats.root_hash };
  $("details").replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))]),
  );
}

async function verify() {
  const report = await post(bankPath("/verify"), {});
  notice(report.ok ? `No damage; ${count(report.documents, "document")}.` : report.damage.join(" "), !report.ok);
}

async function snapshot() {
  const response = await call(bankPath("/snapshot"));
  const address = URL.createObjectURL(await response.blob());
  make("a", { href: address, download: `${state.bank}.bank` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

async function dropBank() {
  const said = await dialog(
    `Delete the bank ${state.bank}?`,
    make("p", {}, "All of its documents go with it. This cannot be undone."),
    [["", "Keep it"], ["ok", "Delete the bank", "danger"]],
  );
  if (said !== "ok") return;
  await remove(bankPath());
  clearChat();
  await loadBanks();
}

// ---- documents

async function showDocuments(more) {
  const query = new URLSearchParams({ limit: "50", q: state.words });
  if (more && state.next !== null) query.set("before", state.next);
  const page = await get(bankPath(`/documents?${query}`));
  const rows = page.data.map(documentRow);
  if (more) $("rows").append(...rows);
  else $("rows").replaceChildren(...rows);
  state.next = page.next;
  $("more").hidden = page.next === null;
  $("count").textContent = state.words
    ? `${count(page.count, "document")} with “${state.words}”`
    : count(page.count, "document");
}

function documentRow(one) {
  const title = one.metadata.title || one.snippet || one.id;
  return make("tr", {},
    make("td", {}, make("button", { className: "open", title: one.id, onclick: guarded(() => openDocument(one.id)) }, String(title))),
    make("td", { className: "wide", title: one.source || "" }, one.source || ""),
    make("td", { className: "wide", title: one.time || "" }, (one.time || "").slice(0, 10)),
    make("td", {}, one.level),
    make("td", { className: "number" }, one.bytes.toLocaleString("en")),
    make("td", {}, make("button", { className: "danger", "aria-label": `Delete ${title}`, onclick: guarded(() => deleteDocument(one.id)) }, "✕")),
  );
}

async function openDocument(id) {
  const one = await get(bankPath(`/documents/${enc(id)}`));
  const facts = [one.id, one.source, one.time, `level ${one.level}`, bytes(one.bytes)].filter(Boolean).join(" · ");
  const text = one.text || "The bank keeps no text of this document at this level.";
  const said = await dialog(
    one.metadata.title || one.source || one.id,
    [make("p", { className: "quiet" }, facts), make("div", { className: "text" }, text)],
    [["delete", "Delete", "danger"], ["", "Close", "main"]],
  );
  if (said === "delete") await deleteDocument(id);
}

async function deleteDocument(id) {
  const said = await dialog(
    "Delete this document?",
    make("p", { className: "text" }, id),
    [["", "Keep it"], ["ok", "Delete", "danger"]],
  );
  if (said !== "ok") return;
  const receipt = await remove(bankPath(`/documents/${enc(id)}`));
  await refresh();
  const rows = {
    deleted: receipt.documents.join(", "),
    exact: receipt.exact ? "yes, nothing of it remains" : `no: ${receipt.remains}`,
    time: receipt.time,
    before: receipt.before,
    after: receipt.after,
  };
  await dialog(
    "Receipt",
    make("dl", {}, ...Object.entries(rows).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    [["", "Close", "main"]],
  );
}

async function paste() {
  const body = { text: $("text").value };
  if ($("source").value) body.source = $("source").value;
  if ($("time").value) body.time = $("time").value;
  told(await post(bankPath("/documents"), body));
  $("paste").reset();
  await refresh();
}

async function upload(files) {
  const total = { stored: 0, duplicates: 0, faded: [], forgotten: [] };
  for (const file of files) {
    notice(`Writing ${file.name} …`);
    const text = new TextDecoder("utf-8", { fatal: true });
    let read;
    try {
      read = text.decode(await file.arrayBuffer());
    } catch {
      throw new Error(`${file.name} is not text in UTF-8; write it with: latentbank write`);
    }
    const said = await post(bankPath("/documents"), { text: read, source: file.name });
    total.stored += said.stored;
    total.duplicates += said.duplicates;
    total.faded.push(...said.faded);
    total.forgotten.push(...said.forgotten);
  }
  told(total);
  await refresh();
}

function told(report) {
  const parts = [report.stored ? `${count(report.stored, "text")} written` : "already there"];
  if (report.faded.length) parts.push(`${count(report.faded.length, "document")} faded`);
  if (report.forgotten.length) parts.push(`${count(report.forgotten.length, "document")} forgotten`);
  notice(parts.join(", ") + ".");
}

// ---- chat

function clearChat() {
  state.turns = [];
  $("messages").replaceChildren();
  $("empty").hidden = false;
}

async function ask() {
  const text = $("question").value.trim();
  if (!text || state.aborter || !state.bank) return;
  $("question").value = "";
  $("empty").hidden = true;
  state.turns.push({ role: "user", content: text });
  const said = make("div", { className: "said" }, "…");
  const item = make("li", { className: "assistant" }, said);
  $("messages").append(make("li", { className: "user" }, text), item);
  state.aborter = new AbortController();
  $("stop").hidden = false;
  $("send").disabled = true;
  let answer = "";
  try {
    const response = await call("/v1/chat/completions", {
      method: "POST",
      signal: state.aborter.signal,
      body: JSON.stringify({
        model: state.bank,
        messages: state.turns.slice(-20),
        stream: true,
        style: $("style").value,
        quality: $("quality").value,
      }),
    });
    for await (const event of events(response)) {
      if (event.error) throw new Failure(503, event.error);
      answer += event.choices[0].delta.content || "";
      if (answer) said.textContent = answer;
      if (event.latentbank) finish(item, said, answer, event.latentbank);
      item.scrollIntoView({ block: "end" });
    }
    state.turns.push({ role: "assistant", content: answer || "…" });
  } catch (error) {
    state.turns.pop();
    if (error.name !== "AbortError") {
      said.textContent = error.message;
      said.classList.add("failed");
    }
  } finally {
    state.aborter = null;
    $("stop").hidden = true;
    $("send").disabled = false;
  }
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      const line = rest.slice(0, end);
      rest = rest.slice(end + 2);
      if (line === "data: [DONE]") return;
      if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
    }
  }
}

function finish(item, said, answer, about) {
  const open = (one) => guarded(() => openDocument(one.id));
  const byNumber = new Map(about.citations.map((one) => [String(one.number), one]));
  const parts = answer.split(/(\[\d+\])/).map((part) => {
    const one = byNumber.get(part.slice(1, -1));
    if (!one || part[0] !== "[") return part;
    return make("button", { type: "button", className: "mark", title: one.snippet, onclick: open(one) }, part);
  });
  said.replaceChildren(...(answer ? parts : ["(no answer)"]));
  const cites = make("div", { className: "cites", "aria-label": "Sources" });
  for (const one of about.citations) {
    const name = one.title || one.source || one.id;
    cites.append(make("button", { type: "button", title: one.snippet, onclick: open(one) }, `[${one.number}] ${name}`));
  }
  if (!about.citations.length) cites.append(make("span", { className: "quiet small" }, "from the model alone, no document"));
  item.append(cites);
}

// ---- parts of the page

const tabs = [...document.querySelectorAll("[role=tab]")];

function show(tab, focus = false) {
  const wide = matchMedia("(min-width: 900px)").matches;
  const part = tab.getAttribute("aria-controls");
  document.querySelector("main").dataset.part = part;
  for (const one of tabs) {
    const chosen = one === tab;
    one.setAttribute("aria-selected", chosen);
    one.tabIndex = chosen ? 0 : -1;
    const panel = $(one.getAttribute("aria-controls"));
    panel.hidden = !chosen && !(wide && panel.id === "chat");
  }
  if (wide && part === "chat") return show(tabs[1], focus);
  if (focus) tab.focus();
}

for (const tab of tabs) {
  tab.addEventListener("click", () => show(tab));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const open = tabs.filter((one) => getComputedStyle(one).display !== "none");
    show(open[(open.indexOf(tab) + step + open.length) % open.length], true);
  });
}
matchMedia("(min-width: 900px)").addEventListener("change", () => show(tabs[0]));

$("ask").addEventListener("submit", guarded(ask));
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
$("stop").addEventListener("click", () => state.aborter?.abort());
$("clear").addEventListener("click", clearChat);
$("banks").addEventListener("change", guarded(async () => {
  state.bank = $("banks").value;
  state.words = $("words").value = "";
  clearChat();
  await refresh();
}));
$("new-bank").addEventListener("click", guarded(newBank));
$("search").addEventListener("submit", guarded(async () => {
  state.words = $("words").value.trim();
  await showDocuments(false);
}));
$("words").addEventListener("search", () => $("search").requestSubmit());
$("more").addEventListener("click", guarded(() => showDocuments(true)));
$("paste").addEventListener("submit", guarded(paste));
$("files").addEventListener("change", guarded(async () => {
  const files = [...$("files").files];
  $("files").value = "";
  await upload(files);
}));
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") guarded(() => upload([...event.dataTransfer.files]))();
  });
}
$("verify").addEventListener("click", guarded(verify));
$("snapshot").addEventListener("click", guarded(snapshot));
$("drop-bank").addEventListener("click", guarded(dropBank));

show(tabs[0]);
guarded(() => loadBanks())();
