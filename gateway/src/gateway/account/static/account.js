// Reads a mail's token from the fragment, which no server ever sees, and hands the form to the API.
const form = document.querySelector("form");
const status = document.querySelector("[role=status]");

form.token.value = location.hash.slice(1);
history.replaceState(null, "", location.pathname); // the token stays neither in the address bar nor in the history
form.hidden = false;
(form.token.value ? form.querySelector("input:not(#token), button") : form.token).focus();

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { repeat, password } = form.elements;
  if (repeat && repeat.value !== password.value) {
    status.textContent = "The passwords differ.";
    repeat.focus();
    return;
  }
  const button = form.querySelector("button");
  button.disabled = true;
  status.textContent = await send(Object.fromEntries(new FormData(form)));
  button.disabled = false;
});

async function send(body) {
  try {
    const answer = await fetch(form.dataset.api, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (answer.ok) {
      form.hidden = true;
      return form.dataset.done;
    }
    const problem = await answer.json();
    return (problem.errors ?? []).map((fault) => fault.message).join(" ") || problem.detail;
  } catch {
    return "That did not work just now. Please try again.";
  }
}
