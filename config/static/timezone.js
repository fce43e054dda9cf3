// Chooses the reader's own time zone in the sign-up form, unless they have chosen one already.
const select = document.querySelector("[data-guess-time-zone] select[name=time_zone]");
if (select && select.selectedOptions[0]?.defaultSelected) {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if ([...select.options].some((option) => option.value === zone)) select.value = zone;
}
