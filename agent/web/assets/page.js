// Asks again every few seconds, puts in place what changed, and lets the ages count on in between.
"use strict";
(() => {
  const EVERY_MS = 3000;
  const main = document.getElementById("main");
  const fresh = document.getElementById("fresh");
  const seen = new Map();
  let answeredAt = Date.now();

  const words = (seconds) => {
    if (seconds < 10) return Math.max(seconds, 0).toFixed(1) + " s";
    const whole = Math.round(seconds);
    for (const [long, short, names] of [[86400, 3600, "dh"], [3600, 60, "hm"], [60, 1, "ms"]]) {
      if (whole >= long) {
        const rest = String(Math.floor((whole % long) / short)).padStart(2, "0");
        return Math.floor(whole / long) + names[0] + rest + names[1];
      }
    }
    return whole + " s";
  };

  // By the server's time, not by this device's clock.
  const count = () => {
    const passed = (Date.now() - answeredAt) / 1000;
    for (const one of document.querySelectorAll("[data-since]")) {
      one.textContent = words(Number(one.dataset.now) - Number(one.dataset.since) + passed);
    }
    const late = passed > 3 * EVERY_MS / 1000;
    fresh.textContent = late ? "no answer for " + words(passed) : "live";
    fresh.classList.toggle("late", late);
  };

  const put = (html) => {
    const parsed = new DOMParser().parseFromString("<main>" + html + "</main>", "text/html");
    const wanted = [...parsed.querySelector("main").children];
    const there = new Map([...main.children].map((section) => [section.id, section]));
    const kept = wanted.map((section) => {
      const old = there.get(section.id);
      if (old && seen.get(section.id) === section.outerHTML) return old;
      seen.set(section.id, section.outerHTML);
      for (const one of old ? old.querySelectorAll("details[open]") : []) {
        const same = section.querySelector("#" + one.id);
        if (same) same.open = true;
      }
      return section;
    });
    const order = kept.some((section, place) => main.children[place] !== section);
    if (order || main.children.length !== kept.length) main.replaceChildren(...kept);
    const title = main.querySelector("h1");
    if (title) document.title = "Tidelog · " + title.lastChild.textContent.trim();
  };

  const ask = async () => {
    try {
      const answer = await fetch("/api/overview?main", {
        signal: AbortSignal.timeout(10000),
        credentials: "same-origin",
      });
      if (answer.ok) {
        put((await answer.json()).main);
        answeredAt = Date.now();
      }
    } catch {
      // Said by the age of the last answer.
    }
    count();
    setTimeout(ask, document.hidden ? 5 * EVERY_MS : EVERY_MS);
  };

  setInterval(count, 1000);
  setTimeout(ask, EVERY_MS);
})();
