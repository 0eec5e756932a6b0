"""Make the pictures of README and site from a finished run: `python docs/pictures.py runs/quickstart`.

Needs chromium and chromedriver (selenium is in the extra `dev`).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

PICTURES = Path(__file__).parent / "_static"


def browser() -> webdriver.Chrome:
    """Chromium without a window, 1280 pixels wide."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--window-size=1280,900"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options)


def main(run: str) -> None:
    """Write the page's first screen, its one debate and the figure of accuracy over skill."""
    subprocess.run(["debate-rl", "report", run], check=True)
    command = ["debate-rl", "plot", run, "--figure", "accuracy_over_skill", "--format", "png", "--out", str(PICTURES)]
    subprocess.run(command, check=True)
    driver = browser()
    try:
        driver.get((Path(run) / "report" / "index.html").resolve().as_uri())
        debate = WebDriverWait(driver, 30).until(lambda page: page.find_element(By.CSS_SELECTOR, "article.one"))
        driver.save_screenshot(str(PICTURES / "report.png"))
        debate.screenshot(str(PICTURES / "debate.png"))
    finally:
        driver.quit()


if __name__ == "__main__":
    main(sys.argv[1])
