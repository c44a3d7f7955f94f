// Sets the chosen colours before anything is drawn. Nothing chosen: those of the visitor's system.
"use strict";
(() => {
  document.documentElement.classList.add("js");
  const chosen = () => { try { return localStorage.getItem("nextmask-theme"); } catch { return null; } };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const theme = chosen() || (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = theme;
    document.dispatchEvent(new Event("nextmask:theme"));
  };
  window.nextmaskTheme = (theme) => {
    try { localStorage.setItem("nextmask-theme", theme); } catch { /* private mode: until the next page */ }
    document.documentElement.dataset.theme = theme;
    document.dispatchEvent(new Event("nextmask:theme"));
  };
  dark.addEventListener("change", apply);
  apply();
})();
