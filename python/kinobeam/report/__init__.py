"""One HTML file that shows what a search did: `html.render_report`.

`collector` keeps thumbnails while sampling, `tree` and `chart` lay out the pictures, `media` writes
mp4 and PNG, `verdicts` asks the world's judge, `report.html.j2` is the page.
"""
