// Loads the page again once a file of the project has changed, while it is looked at.
{
  const address = new URL("changed", document.currentScript.src);
  let known;
  setInterval(async () => {
    if (document.hidden) return;
    const answer = await fetch(address).catch(() => null);  // there is none while it starts again
    const found = answer?.ok ? await answer.text() : answer && "a fault";
    if (known && found && known !== found) location.reload();
    known = found || known;
  }, 1000);
}
