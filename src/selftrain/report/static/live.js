"use strict";
// A live report asks its server now and then whether the run folder has changed, and loads itself again if so.
(function () {
  const EVERY_MS = 3000;
  const mine = document.documentElement.dataset.version;
  const told = document.getElementById("live");

  async function look() {
    try {
      const answer = await fetch("/version", { cache: "no-store" });
      const version = (await answer.text()).trim();
      told.textContent = "live";
      if (answer.ok && version && version !== mine) {
        location.reload();
        return;
      }
    } catch (error) {
      told.textContent = "the server has ended; this is the last state";
    }
    setTimeout(look, EVERY_MS);
  }

  setTimeout(look, EVERY_MS);
})();
