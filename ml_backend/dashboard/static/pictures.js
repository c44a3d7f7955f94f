// What is under way: a picture that is seen and has not come yet says so, and so does one that never comes.
"use strict";
(() => {
  const piles = [...document.querySelectorAll(".layers")];
  const failed = new WeakSet();

  function show(pile) {
    const seen = [...pile.querySelectorAll("img")].filter((image) => image.checkVisibility());
    const waits = seen.some((image) => !image.complete);
    const state = seen.some((image) => failed.has(image)) ? "failed" : waits ? "loading" : "";
    if (state) pile.dataset.state = state; else delete pile.dataset.state;
    pile.setAttribute("aria-busy", String(waits));
  }

  for (const pile of piles) {
    for (const image of pile.querySelectorAll("img")) {
      if (image.complete && !image.naturalWidth && image.currentSrc) failed.add(image);
      image.addEventListener("error", () => { failed.add(image); show(pile); });
      image.addEventListener("load", () => { failed.delete(image); show(pile); });
    }
    show(pile);
  }

  // The large picture opens with what lies over the small one.
  const chosen = () => document.querySelector("input[name=layer]:checked")?.value;
  function follow() {
    for (const link of document.querySelectorAll("a.layers, nav a:is([rel=prev], [rel=next])")) {
      const address = new URL(link.href);
      if (chosen()) address.searchParams.set("layer", chosen());
      link.href = address.href;
    }
    for (const pile of piles) show(pile);
  }

  for (const input of document.querySelectorAll(".looks input")) input.addEventListener("change", follow);
  follow();
})();
