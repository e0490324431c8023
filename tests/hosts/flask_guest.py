"""A Flask application to mount. It does not know its prefix."""

from pathlib import Path

from flask import Flask, Response, redirect, request, send_file, session, url_for

HERE = Path(__file__).parent
application = Flask(__name__)
application.secret_key = "Flask's secret key"


@application.route("/")
def home():
    return f"{url_for('sign')} {session.get('last')}"


@application.route("/sign/", methods=["POST"])
def sign():
    session["last"] = request.form["name"]
    return redirect(url_for("home"))


@application.route("/file/")
def file():
    return send_file(HERE / "files/site.css")


@application.route("/stream/")
def stream():
    response = Response(f"line {number}\n" for number in range(3))
    response.call_on_close((HERE / "closed.txt").touch)
    return response
