// What pages do beyond reading: the visitor's own time zone, and the switch between light and dark.
"use strict";
(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

  function localise(root) {
    for (const time of root.querySelectorAll("time[datetime]:not([data-local])")) {
      time.title = time.textContent;
      time.textContent = format.format(new Date(time.dateTime));
      time.dataset.local = "";
    }
  }

  function switchOfTheme() {
    const button = document.querySelector("button.theme");
    const name = () => { button.textContent = document.documentElement.dataset.theme === "dark" ? "Light" : "Dark"; };
    button.hidden = false;
    name();
    button.addEventListener("click", () => {
      window.nextmaskTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    });
    document.addEventListener("nextmask:theme", name);
  }

  // Says a change of state aloud, once, and not each look at what did not change.
  let state = document.querySelector("#live")?.dataset.state;
  function announce() {
    const now = document.querySelector("#live")?.dataset.state;
    const where = document.querySelector("#announcement");
    if (where && now && now !== state) where.textContent = `State: ${now}`;
    state = now;
  }

  // What is running cannot be asked for: its button says so until it has ended.
  function switchOff() {
    const live = document.querySelector("#live");
    if (!live) return;
    for (const button of document.querySelectorAll("[data-off-while]")) {
      const [idle, busy] = button.dataset.words.split("|");
      button.disabled = live.dataset.busy === button.dataset.offWhile;
      button.textContent = button.disabled ? busy : idle;
    }
  }

  localise(document);
  for (const element of document.querySelectorAll(".zone")) element.textContent = zone || "local";
  document.addEventListener("htmx:afterSwap", () => { localise(document); announce(); switchOff(); });
  switchOfTheme();
})();
