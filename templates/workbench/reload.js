// Reload the page, if it is visible, when a file of the project changes.
{
  const address = new URL("changed", document.currentScript.src);
  let known;
  setInterval(async () => {
    if (document.hidden) return;
    const response = await fetch(address).catch(() => null);  // null while the server restarts
    const current = response?.ok ? await response.text() : response && "an error";
    if (known && current && known !== current) location.reload();
    known = current || known;
  }, 1000);
}
