"""Echoes what it is sent. Built by `portolan acr build`, served by gunicorn."""

import os

from flask import Flask, jsonify, request

app = Flask(__name__)


@app.get("/")
def about():
    return jsonify(app="flask-echo", version=os.environ.get("APP_VERSION", "dev"), env=os.environ.get("APP_ENV", ""))


@app.route("/echo", methods=["GET", "POST"])
def echo():
    return jsonify(method=request.method, args=request.args.to_dict(), body=request.get_data(as_text=True))


@app.get("/healthz")
def healthz():
    return "ok"
