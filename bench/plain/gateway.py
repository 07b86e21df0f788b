"""The ordinary gateway, as a peer to measure against: FastAPI checks the token with PyJWT and forwards with httpx."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import httpx
import jwt
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

KEYS = {key["kid"]: jwt.PyJWK(key).key for key in json.loads(Path(os.environ["PLAIN_JWKS"]).read_text())["keys"]}
DIRECTORY: dict[str, str] = json.loads(Path(os.environ["PLAIN_DIRECTORY"]).read_text())


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for all calls."""
    transport = httpx.AsyncHTTPTransport(
        uds=os.environ["PLAIN_SOCKET"], limits=httpx.Limits(max_connections=200, max_keepalive_connections=200)
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://patients") as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


def practice_of(bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> str:
    """The practice that the token names."""
    try:
        kid = jwt.get_unverified_header(bearer.credentials)["kid"]
        claims = jwt.decode(
            bearer.credentials, KEYS[kid], algorithms=["EdDSA"], audience="gowebbo-api", issuer="gowebbo"
        )
    except (jwt.PyJWTError, KeyError) as fault:
        raise HTTPException(401) from fault
    return str(claims["practice"])


@app.api_route("/api/v1/patients", methods=["GET", "POST"])
@app.api_route("/api/v1/patients/{patient_id}", methods=["GET"])
async def forward(request: Request, practice_id: Annotated[str, Depends(practice_of)]) -> Response:
    """Hands the call on."""
    answer = await request.app.state.client.request(
        request.method,
        request.url.path,
        params=request.query_params,
        content=await request.body(),
        headers={
            "X-Practice-Id": practice_id,
            "X-Shard": DIRECTORY[practice_id],
            "Content-Type": request.headers.get("content-type", "application/json"),
        },
    )
    return Response(answer.content, answer.status_code, media_type="application/json")
