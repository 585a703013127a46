// The theme's search is a dialog without a name: screen readers want one.
document.querySelector("[data-md-component=search]")?.setAttribute("aria-label", "Search");
