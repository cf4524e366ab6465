// Uploads that can be paused, and that go on after a broken connection or a reload (tus). Without JavaScript the form is a plain one.
"use strict";
(() => {
  const PART = 8e6, AGAIN = [0, 1000, 3000, 5000, 10000, 20000];
  const running = new WeakMap();
  const { ticket, file: name, size } = document.getElementById("live").dataset;

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

  const button = (form) => form.querySelector("button");
  const pause = (form) => form.querySelector("[data-upload-pause]");

  function show(form, state) {
    button(form).hidden = state === "busy";
    button(form).textContent = state === "paused" ? "Go on" : "Upload";
    pause(form).hidden = state !== "busy";
    form.querySelector("progress").hidden = state === "idle";
    form.querySelector("input[type=file]").disabled = state !== "idle";
  }

  function why(error) {
    const page = new DOMParser().parseFromString(error.originalResponse?.getBody() || "", "text/html");
    return page.querySelector(".error")?.textContent.trim() || "The connection broke. Press Upload to go on where it stopped.";
  }

  // The library is larger than the rest of the page, so it comes when it is needed.
  const library = (form) => window.tus ? Promise.resolve() : new Promise((done, failed) => {
    const script = Object.assign(document.createElement("script"), { src: form.dataset.library, onload: done, onerror: failed });
    document.head.append(script);
  });

  // The file that the order was made with is put where one would choose it.
  const awaited = ["quoted", "paid", "expired"].includes(document.getElementById("status").dataset.status);
  const mine = awaited ? kept.take(ticket, name, Number(size)) : kept.drop(ticket);

  async function offer() {
    const form = document.querySelector("form[data-upload]"), file = await mine;
    const input = form?.querySelector("input[type=file]");
    if (!file || !input || "offered" in form.dataset || input.files.length) return;
    form.dataset.offered = "";
    const one = new DataTransfer();
    one.items.add(file);
    input.files = one.files;
    form.querySelector("[data-upload-choose]")?.remove();
    form.querySelector("[data-upload-kept]").textContent = `${file.name} is still here: press Upload, or choose another file.`;
  }

  async function send(form, file) {
    show(form, "busy");
    form.querySelector("[data-upload-kept]").textContent = "";
    kept.keep(file, ticket);
    try {
      await library(form);
    } catch {
      show(form, "idle");
      return say(form, "The connection broke. Press Upload to try again.", true);
    }
    const bar = form.querySelector("progress");
    const upload = new tus.Upload(file, {
      endpoint: form.dataset.upload,
      chunkSize: PART,
      retryDelays: AGAIN,
      metadata: { filename: file.name },
      removeFingerprintOnSuccess: true,
      onBeforeRequest(request) {
        request.setHeader("X-CSRFToken", document.querySelector("meta[name=csrf]").content);
        request.setHeader("HX-Request", "true");
      },
      onProgress(sent, total) {
        bar.value = sent / total;
        say(form, sent < total ? `${Math.floor(100 * bar.value)} % sent` : "Sent; being stored…");
      },
      onSuccess() {
        running.delete(form);
        say(form, "Uploaded.");
        kept.drop(ticket);
        htmx.trigger("#live", "refresh");
      },
      onError(error) {
        running.delete(form);
        show(form, "idle");
        say(form, why(error), true);
      },
    });
    running.set(form, upload);
    const [before] = await upload.findPreviousUploads();
    if (before) upload.resumeFromPreviousUpload(before);
    upload.start();
  }

  document.addEventListener("click", async (event) => {
    const form = event.target.closest("[data-upload-pause]")?.form;
    if (!running.has(form)) return;
    await running.get(form).abort();
    show(form, "paused");
    say(form, "Paused. What was sent is kept, after a reload too.");
  });
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("form[data-upload]");
    if (!form) return;
    event.preventDefault();
    if (running.has(form)) {
      show(form, "busy");
      running.get(form).start();
      return;
    }
    const file = form.querySelector("input[type=file]").files[0];
    const problem = file ? tooLarge(form, file) : "Please choose a file.";
    if (problem) say(form, problem, true);
    else send(form, file);
  });
  document.addEventListener("htmx:afterSettle", offer);
  offer();
})();
