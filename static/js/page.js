// Small things on every page: show a password, copy a text, drop a file, ask before something that cannot be undone.
"use strict";
const EYE = '<svg viewBox="0 0 24 24" width="20" height="20" fill="none" stroke="currentColor" stroke-width="2" aria-hidden="true">' +
  '<path d="M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12z"/><circle cx="12" cy="12" r="3"/><path class="off" d="M4 20 20 4"/></svg>';
document.querySelectorAll("input[data-reveal]").forEach((input) => {
  const eye = Object.assign(document.createElement("button"), { type: "button", className: "eye", innerHTML: EYE });
  const label = () => {
    const shown = input.type === "text";
    eye.setAttribute("aria-label", shown ? "Hide password" : "Show password");
    eye.setAttribute("aria-pressed", String(shown));
  };
  eye.addEventListener("click", () => { input.type = input.type === "text" ? "password" : "text"; label(); });
  label();
  const box = Object.assign(document.createElement("span"), { className: "reveal" });
  input.replaceWith(box);
  box.append(input, eye);
});
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent.trim());
  button.textContent = "Copied";
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    const drop = event.target.closest?.(".drop"), input = drop?.querySelector("input[type=file]");
    if (!input || input.disabled) return;
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name !== "drop" || !event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
}
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
  if ("logout" in event.target.dataset) window.indexedDB?.deleteDatabase("dml-files");  // what kept.js keeps is the person's own
});
