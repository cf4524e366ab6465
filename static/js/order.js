// The order page: the price as soon as a file is chosen, and the check of the file before paying.
"use strict";
(() => {
  const file = document.getElementById("file");
  if (!file) return;
  const check = document.getElementById("check");
  const checked = document.getElementById("checked");
  const price = document.getElementById("price");
  const button = document.getElementById("submit");
  const field = (name) => document.querySelector(`#order [name=${name}]`);
  const most = Number(file.dataset.most), mostChecked = Number(file.dataset.mostChecked);

  // What a price by complexity needs of the file: with the check's answer, else said by the customer.
  const work = ["samples", "sample_shape", "outputs", "tokens"].map(field);
  const say = (facts) => [facts.samples, facts.shape, facts.outputs, facts.tokens].forEach((value, at) => { work[at].value = value || ""; });

  // A model of one's own is counted when it is read; until then its price by complexity is not known.
  const own = document.getElementById("own-model");
  const unread = () => field("model_file").files.length > 0 && !own.querySelector("[name=own_operations]");

  function quote() {
    const bySize = field("price_scheme").value === "size-1";
    document.getElementById("work").hidden = bySize;
    const size = Number(field("file_size").value);
    if (!size || size > most) return;
    if (!bySize && unread()) price.replaceChildren("A price by complexity has to know your own model first.");
    else htmx.trigger(price, "price");
  }

  const readable = (size) => size < 1e6 ? `${Math.ceil(size / 1e3)} kB` : `${(size / 1e6).toFixed(1)} MB`;

  function refuse(text) {
    const line = Object.assign(document.createElement("p"), { className: "error", role: "alert", textContent: text });
    checked.replaceChildren(line);
    button.disabled = true;
  }

  // Offers the header's names for the target, even where the check then fails for want of the right one. Of tables that are no text they come with the check.
  async function suggest(it) {
    const names = /\.(csv|tsv|txt)$/i.test(it.name) ? (await it.slice(0, 65536).text()).split(/\r?\n/, 1)[0].split(/[,;\t|]/) : [];
    document.getElementById("columns").replaceChildren(...names.slice(0, 500).map((name) =>
      Object.assign(document.createElement("option"), { value: name.trim().replace(/^\uFEFF?"?|"$/g, "") })));
  }

  function chosen() {
    const it = file.files[0];
    field("file_name").value = it ? it.name.slice(-200) : "";
    field("file_size").value = it ? it.size : "";
    price.replaceChildren("–");
    document.getElementById("chosen").textContent = it ? `${it.name}, ${readable(it.size)}` : "";
    checked.replaceChildren();
    button.disabled = false;
    if (!it) return;
    suggest(it);
    quote();
    if (it.size && it.size <= most) kept.keep(it);
    if (!it.size) refuse("The file is empty. Please choose another one.");
    else if (it.size > most) refuse(`The file is larger than ${readable(most)}, the most we take.`);
    else if (it.size > mostChecked) checked.textContent = "This file is too large to be checked before paying. If it cannot be trained on, you get the whole payment back.";
    else { button.disabled = true; htmx.trigger(check, "check"); }
  }

  // An answer of the check that is an error keeps the order closed; one that never came does not.
  check.addEventListener("htmx:afterRequest", (event) => {
    const status = event.detail.xhr.status;
    button.disabled = status === 422;
    if (status === 0) checked.textContent = "The check did not get through. You can order all the same: a file that cannot be trained on is refunded.";
  });
  checked.addEventListener("htmx:afterSwap", () => {
    const facts = document.getElementById("facts");
    if (facts) { say(facts.dataset); quote(); }
  });
  document.getElementById("order").addEventListener("input", (event) => {
    if (event.target === field("model_file")) own.replaceChildren();
    quote();
  });
  own.addEventListener("htmx:afterSwap", quote);
  file.addEventListener("change", () => { say({}); chosen(); });
  for (const name of ["target", "task", "group", "window", "horizon"]) field(name).addEventListener("change", () => { if (file.files[0]) chosen(); });

  // A page that comes back, by the back button or with an error, knows the file or at least its size. htmx is ready only then.
  document.addEventListener("DOMContentLoaded", () => {
    if (file.files[0]) chosen();
    else quote();
  });
})();
