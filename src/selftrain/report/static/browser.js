"use strict";
// The sample browser of a report: filters the answers that the page holds as JSON and shows them side by side.
// Whatever a model, a file or a configuration wrote becomes text (textContent), never markup. Nothing is loaded.
(function () {
  const PAGE = 20; // problems shown at once
  const CHANGES = {
    gained: "\u2717 \u2192 \u2713 wrong to right",
    lost: "\u2713 \u2192 \u2717 right to wrong",
    right: "\u2713 \u2713 right both times",
    wrong: "\u2717 \u2717 wrong both times",
  };
  const byId = (id) => document.getElementById(id);
  const sets = JSON.parse(byId("answers").textContent).sets;
  const [set, first, second, words, results, more] = ["set", "first", "second", "words", "results", "more"].map(byId);
  const memory = "selftrain-browser:" + location.pathname;
  let found = [];
  let numShown = 0;

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function fill(select, labels, chosen) {
    select.replaceChildren(...labels.map(([value, label]) => {
      const option = element("option", "", label);
      option.value = String(value);
      return option;
    }));
    select.value = String(chosen);
  }

  function radios(name) {
    return [...document.querySelectorAll(`#browser input[name=${name}]`)];
  }

  function chosen(name) {
    return radios(name).find((radio) => radio.checked).value;
  }

  function choose(name, value) {
    for (const radio of radios(name)) radio.checked = radio.value === value;
  }

  const current = () => sets[Number(set.value)];

  // A row's answers by the two chosen models; null where there is none.
  function pair(row) {
    const answers = current().answers[row];
    return [answers[Number(first.value)], second.value === "" ? null : answers[Number(second.value)]];
  }

  function change(before, after) {
    if (!before || !after) return "";
    if (before.right) return after.right ? "right" : "lost";
    return after.right ? "gained" : "wrong";
  }

  function holds(row, before, after, wanted) {
    if (wanted.length === 0) return true;
    const problem = current().problems[current().rows[row][0]];
    const texts = [problem.id, problem.question, problem.answer || ""];
    for (const answer of [before, after]) if (answer) texts.push(answer.text.join(""), answer.found || "");
    const all = texts.join("\n").toLowerCase();
    return wanted.every((word) => all.includes(word));
  }

  function newSet() {
    const models = current().models.map((model, index) => [index, model.label]);
    fill(first, models, current().first);
    fill(second, [["", "none"], ...models], current().second === null ? "" : current().second);
    byId("set-note").textContent = current().note;
  }

  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdict = chosen("verdict");
    const counts = { any: 0, gained: 0, lost: 0, right: 0, wrong: 0 };
    const alone = second.value === "";
    for (const radio of radios("change")) radio.disabled = alone;
    if (alone) choose("change", "any");
    const kind = chosen("change");
    found = [];
    current().rows.forEach((_, row) => {
      const [before, after] = pair(row);
      if (!before && !after) return;
      if (verdict !== "any" && (!before || Boolean(before.right) !== (verdict === "right"))) return;
      if (!holds(row, before, after, wanted)) return;
      const changed = change(before, after);
      counts.any += 1;
      if (changed) counts[changed] += 1;
      if (kind === "any" || kind === changed) found.push(row);
    });
    for (const radio of radios("change")) {
      radio.parentElement.querySelector(".number").textContent = alone ? "" : ` ${counts[radio.value]}`;
    }
    numShown = 0;
    results.replaceChildren();
    showMore();
    remember();
  }

  function showMore() {
    const next = found.slice(numShown, numShown + PAGE);
    const articles = next.map(article);
    results.append(...articles);
    numShown += next.length;
    const total = current().rows.length;
    byId("shown").textContent = found.length === 0
      ? `Nothing of ${total} fits these filters.`
      : `${found.length} of ${total} fit; the first ${numShown} are shown.`;
    more.hidden = numShown >= found.length;
    return articles;
  }

  function article(row) {
    const [place, k] = current().rows[row];
    const problem = current().problems[place];
    const [before, after] = pair(row);
    const made = element("article", "sample");
    const changed = change(before, after);
    const verdict = before && before.right ? "\u2713 right" : "\u2717 wrong";
    const title = element("h3", "", (changed ? CHANGES[changed] : before ? verdict : "one answer") + " ");
    title.append(element("small", "", problem.id + (current().sampled ? `, draw ${k + 1}` : "")));
    const answer = element("p", "");
    const small = element("small", "", "Right answer: ");
    small.append(element("b", "", problem.answer === null ? "not known" : problem.answer));
    answer.append(small);
    const sides = element("div", "sides");
    sides.append(side(current().models[Number(first.value)].label, before));
    if (second.value !== "") sides.append(side(current().models[Number(second.value)].label, after));
    made.append(title, element("pre", "", problem.question), answer, sides);
    return made;
  }

  function side(label, answer) {
    const made = element("div", "");
    const line = element("small", "", label + ": ");
    made.append(line);
    if (!answer) {
      line.append("no answer");
      return made;
    }
    line.append(element("b", answer.right ? "ok" : "no", answer.right ? "\u2713 right" : "\u2717 wrong"));
    const calls = answer.calls || 0;
    line.append(`, answer found ${answer.found === undefined ? "none" : answer.found}, `
      + `${calls} call${calls === 1 ? "" : "s"}${answer.cut ? ", cut" : ""}`);
    const text = element("pre", "box");
    // plain text and what the calculator wrote take turns
    answer.text.forEach((piece, place) => text.append(place % 2 ? element("mark", "", piece) : piece));
    made.append(text);
    return made;
  }

  // Filters outlive a reload of the same page, which a live report does by itself.
  function remember() {
    const state = [set.value, first.value, second.value, words.value, chosen("verdict"), chosen("change")];
    try {
      sessionStorage.setItem(memory, JSON.stringify(state));
    } catch (error) { /* a browser that keeps nothing for files: then nothing is kept */ }
  }

  function remembered() {
    try {
      const state = JSON.parse(sessionStorage.getItem(memory));
      return Array.isArray(state) && state.every((part) => typeof part === "string") ? state : null;
    } catch (error) {
      return null;
    }
  }

  function restore(state) {
    const has = (select, value) => [...select.options].some((option) => option.value === value);
    if (!has(set, state[0])) return;
    set.value = state[0];
    newSet();
    if (has(first, state[1])) first.value = state[1];
    if (has(second, state[2])) second.value = state[2];
    words.value = state[3];
    for (const [name, value] of [["verdict", state[4]], ["change", state[5]]]) {
      if (radios(name).some((radio) => radio.value === value)) choose(name, value);
    }
  }

  function clear() {
    words.value = "";
    choose("verdict", "any");
    choose("change", "any");
    newSet();
    filter();
    words.focus();
  }

  fill(set, sets.map((one, index) => [index, one.title]), 0);
  newSet();
  const state = remembered();
  if (state) restore(state);
  set.addEventListener("change", () => { newSet(); filter(); });
  for (const control of [first, second, ...radios("verdict"), ...radios("change")]) {
    control.addEventListener("change", filter);
  }
  words.addEventListener("input", filter);
  byId("clear").addEventListener("click", clear);
  more.addEventListener("click", () => {
    const articles = showMore();
    articles[0].tabIndex = -1; // so that who goes by keyboard goes on reading where the new ones begin
    articles[0].focus();
  });
  filter();
  document.documentElement.classList.add("scripted");
  byId("browser").hidden = false;
})();
