// Uploads with a progress bar. Without it the form is a plain one and works as well.
"use strict";
(() => {
  function say(form, text, bad) {
    const place = form.querySelector("[data-upload-state]");
    place.className = bad ? "state bad" : "state";
    place.textContent = text;
  }

  function tooLarge(form, file) {
    const most = Number(form.dataset.most);
    if (file.size > most) return `This file has ${file.size.toLocaleString()} bytes, but ${most.toLocaleString()} were quoted and paid. Please choose another one.`;
    return file.size ? "" : "This file is empty. Please choose another one.";
  }

  function send(form, body) {
    const bar = form.querySelector("progress");
    const button = form.querySelector("button");
    const request = new XMLHttpRequest();
    const ended = (text) => { say(form, text, true); bar.hidden = true; button.disabled = false; };
    request.upload.addEventListener("progress", (event) => {
      if (!event.lengthComputable) return;
      bar.value = event.loaded / event.total;
      say(form, event.loaded < event.total ? `${Math.floor(100 * bar.value)} % sent` : "Sent; being stored…");
    });
    request.addEventListener("load", () => {
      if (request.status === 204) {
        say(form, "Uploaded.");
        htmx.trigger("#live", "refresh");
        return;
      }
      const page = new DOMParser().parseFromString(request.responseText, "text/html");
      ended(page.querySelector(".error")?.textContent.trim() || "The upload failed. Please try again.");
    });
    request.addEventListener("error", () => ended("The connection broke. Please try again."));
    request.open("POST", form.action);
    request.setRequestHeader("HX-Request", "true");
    button.disabled = true;
    bar.hidden = false;
    request.send(body);
  }

  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-upload]");
    if (!form) return;
    event.preventDefault();
    const file = form.querySelector("input[type=file]").files[0];
    const problem = file ? tooLarge(form, file) : "Please choose a file.";
    if (problem) say(form, problem, true);
    else send(form, new FormData(form));
  });
})();
