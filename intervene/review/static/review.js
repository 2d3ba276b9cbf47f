// Keys, kept focus and spoken results. Without this file every form still works.
"use strict";

const byId = (id) => document.getElementById(id);
const messages = () => [...document.querySelectorAll(".message")];
const here = () => document.activeElement?.closest(".message") ?? null;

// ---------- signing in by link: the token leaves the address at once
function takeTokenFromAddress() {
  const form = document.querySelector("[data-sign-in]");
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!form || !token) return;
  history.replaceState(null, "", location.pathname);
  byId("token").value = token;
  form.requestSubmit();
}

// ---------- results are spoken, focus stays where it was
function say(text) {
  const said = byId("said");
  if (!said) return;
  byId("status").classList.add("notice");
  said.replaceChildren();
  // A live region speaks what changes in it, not what it had from the start.
  setTimeout(() => said.append(Object.assign(document.createElement("p"), { textContent: text })), 100);
}

function speakResult() {
  const said = byId("said");
  if (!said?.hasChildNodes()) return;
  const nodes = [...said.childNodes];
  said.replaceChildren();
  setTimeout(() => said.append(...nodes), 100);
}

function rememberPlace(message) {
  if (!message) return;
  const place = { id: message.id, index: messages().indexOf(message) };
  sessionStorage.setItem("place", JSON.stringify(place));
}

function returnToPlace() {
  const problems = byId("problems");
  if (problems) return problems.focus();
  const stored = sessionStorage.getItem("place");
  // On the page of one message it is kept, for the way back.
  if (!stored || !byId("status")) return undefined;
  sessionStorage.removeItem("place");
  const { id, index } = JSON.parse(stored);
  const all = messages();
  const target = byId(id) ?? all[Math.min(index, all.length - 1)] ?? byId("main");
  return target.focus();
}

// ---------- moving and acting
function move(step) {
  const all = messages();
  if (!all.length) return;
  const now = all.indexOf(here());
  const next = now < 0 ? (step > 0 ? 0 : all.length - 1) : now + step;
  all[Math.min(Math.max(next, 0), all.length - 1)].focus();
}

function withMessage(selector, act, otherwise) {
  const message = here();
  if (!message) return say("Go to a message first, with j or k.");
  const found = message.querySelector(selector);
  return found ? act(found) : say(otherwise);
}

function undo() {
  const form = here()?.querySelector("form.undo") ?? byId("undo-latest");
  if (form) form.requestSubmit();
  else say("There is nothing to undo here.");
}

function openReject(details) {
  details.open = true;
  details.querySelector("input[name=reason]").focus();
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  a: () => withMessage("form.approve", (form) => form.requestSubmit(), "This message is decided already."),
  r: () => withMessage("details.reject", openReject, "This message is decided already."),
  e: () => withMessage("a.edit", (link) => link.click(), ""),
  x: () => withMessage(".select input", (box) => box.click(), "This message is decided already."),
  u: undo,
  "?": () => byId("help").showModal(),
};

const keysAreOn = () => localStorage.getItem("keys") !== "off";

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat && !"jk".includes(event.key)) return;
  const at = event.target;
  const typing = at.matches("textarea, select, input:not([type=checkbox])") || at.isContentEditable;
  if (event.key === "Escape" && at.closest("details[open]")) return closeDetails(at.closest("details"));
  if (typing || byId("help")?.open || !(event.key in KEYS)) return;
  if (!keysAreOn() && event.key !== "?") return;
  event.preventDefault();
  KEYS[event.key]();
}

function closeDetails(details) {
  details.open = false;
  (details.closest(".message") ?? details.querySelector("summary")).focus();
}

// ---------- selecting several
function countSelected() {
  const form = byId("several");
  if (!form) return;
  const count = document.querySelectorAll(".select input:checked").length;
  byId("selected").textContent = count === 1 ? "1 message selected" : `${count} messages selected`;
  form.querySelectorAll("[data-several]").forEach((button) => { button.disabled = count === 0; });
  form.classList.toggle("none", count === 0);
}

function onSubmit(event) {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.id === "several") {
    const rejecting = event.submitter?.formAction.endsWith("/reject");
    const reason = byId("reason-several");
    if (rejecting && !reason.value.trim()) {
      event.preventDefault();
      reason.setCustomValidity("A rejection needs a reason.");
      reason.reportValidity();
      reason.setCustomValidity("");
      return;
    }
    rememberPlace(document.querySelector(".select input:checked")?.closest(".message"));
  } else {
    rememberPlace(form.closest(".message") ?? here() ?? messages()[0]);
  }
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "true";
}

// ---------- text that is not saved yet
function guardEditor() {
  const form = document.querySelector("[data-editor]");
  if (!form) return;
  const fields = [...form.querySelectorAll("input:not([type=hidden]), textarea")];
  const changed = () => fields.some((field) => field.value !== field.defaultValue);
  addEventListener("beforeunload", (event) => {
    if (changed() && !form.dataset.sent) event.preventDefault();
  });
}

function setUp() {
  takeTokenFromAddress();
  if (!byId("help")) return;
  document.querySelector("[data-help]").hidden = false;
  document.querySelector("[data-help]").addEventListener("click", () => byId("help").showModal());
  byId("keys-on").checked = keysAreOn();
  byId("keys-on").addEventListener("change", (event) => localStorage.setItem("keys", event.target.checked ? "on" : "off"));
  document.addEventListener("keydown", onKey);
  document.addEventListener("submit", onSubmit);
  document.addEventListener("change", (event) => { if (event.target.closest(".select")) countSelected(); });
  // Coming back by the browser's own button, forms can be sent again.
  addEventListener("pageshow", () => document.querySelectorAll("form").forEach((form) => { delete form.dataset.sent; }));
  document.querySelectorAll("a.edit").forEach((link) => link.addEventListener("click", () => rememberPlace(link.closest(".message"))));
  countSelected();
  guardEditor();
  speakResult();
  returnToPlace();
}

setUp();
