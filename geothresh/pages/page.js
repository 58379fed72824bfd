
"use strict";
// A range input lies over each pair of pictures: mouse, touch and keys move it, and it tells
// screen readers where it stands.
for (const slider of document.querySelectorAll(".slider")) {
  const input = slider.querySelector("input");
  const move = () => {
    slider.style.setProperty("--cut", input.value + "%");
    input.setAttribute("aria-valuetext", input.value + " % of the width shows " + input.dataset.before);
  };
  input.addEventListener("input", move);
  move();
}
