// Shows times in the browser's zone, and replaces the fragments of an open page that have changed. No page needs it.
"use strict";

const LOCAL = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZoneName: "short" });
const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const PAUSED_AFTER_HIDDEN_MS = 60000;
const RETRY_MS = 5000;
const CLOCK = document.querySelector("#clock time");
// Duecall's clock, by which calls are due. The browser's may be wrong, and the demo's is moved.
const AHEAD_MS = CLOCK ? new Date(CLOCK.dateTime) - Date.now() : 0;

function now() {
  return new Date(Date.now() + AHEAD_MS);
}

// Two units: a call due in 1 h 59 min is not due "in 1 hour".
function distance(seconds) {
  const parts = [];
  let rest = Math.trunc(Math.abs(seconds));
  for (const [unit, size] of UNITS) {
    const count = Math.floor(rest / size);
    rest %= size;
    if (count || parts.length) parts.push(count ? `${count} ${unit}` : "");
  }
  const text = parts.slice(0, 2).filter(Boolean).join(" ");
  if (!text) return "now";
  return seconds < 0 ? `${text} ago` : `in ${text}`;
}

function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    if (time.closest("#clock")) continue;
    const at = new Date(time.dateTime);
    time.title = at.toLocaleString(undefined, { timeZoneName: "short" });
    const small = time.querySelector("small") || time.appendChild(document.createElement("small"));
    small.textContent = ` (${distance((at - now()) / 1000)})`;
  }
}

function showClock() {
  if (!CLOCK) return;
  const at = now();
  CLOCK.dateTime = at.toISOString();
  const utc = `${at.toISOString().slice(0, 16).replace("T", " ")} UTC`;
  CLOCK.textContent = at.getTimezoneOffset() === 0 ? utc : `${utc} · ${LOCAL.format(at)}`;
}

// ---- live fragments

const status = document.getElementById("live-status");
let source = null;
let hidden = 0;
let retry = 0;

function say(text) {
  if (status && status.textContent !== text) status.textContent = text;
}

function replace(element, html) {
  if (element.dataset.html === html) return;
  const isFirst = element.dataset.html === undefined;
  element.dataset.html = html;
  const focused = element.contains(document.activeElement) ? document.activeElement.id : "";
  element.innerHTML = html;
  showTimes(element);
  if (focused) document.getElementById(focused)?.focus();
  if (!isFirst) {
    element.classList.remove("changed");
    void element.offsetWidth;
    element.classList.add("changed");
  }
}

function connect() {
  const live = document.querySelectorAll("[data-live]");
  if (!live.length || source) return;
  source = new EventSource("/live");
  source.onopen = () => say("Live");
  for (const element of live) {
    source.addEventListener(element.id, (event) => replace(element, event.data));
  }
  source.addEventListener("signed-out", () => { disconnect("Signed out"); location.assign("/sign-in?signedOut"); });
  source.onerror = () => {
    // The browser connects again by itself after a lost connection, and not after an error response.
    const isOver = source && source.readyState === EventSource.CLOSED;
    say("Connection lost; connecting again");
    if (isOver) {
      disconnect("Connection lost; connecting again");
      retry = setTimeout(connect, RETRY_MS);
    }
  };
}

function disconnect(text) {
  clearTimeout(retry);
  if (source) source.close();
  source = null;
  say(text);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(hidden);
  if (document.hidden) hidden = setTimeout(() => disconnect("Paused while hidden"), PAUSED_AFTER_HIDDEN_MS);
  else connect();
});

showTimes(document);
showClock();
setInterval(() => { showClock(); showTimes(document); }, 10000);
connect();
