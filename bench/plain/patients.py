"""The ordinary patient service, as a peer to measure against: FastAPI, SQLAlchemy's ORM, Pydantic."""

import os
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Annotated, Generic, TypeVar
from uuid import UUID

import uuid_utils.compat
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

SERVER = make_url(os.environ["PLAIN_DSN"]).set(drivername="postgresql+psycopg2")
app = FastAPI()


class Base(DeclarativeBase):
    """Of all tables."""


class Patient(Base):
    """A row."""

    __tablename__ = "patients"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid_utils.compat.uuid7)
    name: Mapped[str]
    age: Mapped[int]
    mobile: Mapped[str]
    is_deleted: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    version: Mapped[int] = mapped_column(default=1)


class PatientIn(BaseModel):
    """What a client sends."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    age: Annotated[int, Field(ge=0, le=150, strict=True)]
    mobile: Annotated[str, Field(pattern=r"^[0-9 +()-]{5,20}$")]


class PatientOut(PatientIn):
    """What a client gets."""

    model_config = ConfigDict(from_attributes=True)
    id: UUID
    is_deleted: int
    created_at: datetime
    updated_at: datetime
    version: int


Result = TypeVar("Result")


class Envelope(BaseModel, Generic[Result]):
    """Every answer."""

    success: bool = True
    status: int = 200
    message: str = "Done."
    result: Result


class Page(BaseModel):
    """Several patients."""

    data: list[PatientOut]


@cache
def engine_of(database: str) -> Engine:
    """A pool for each practice, of SQLAlchemy's default size."""
    return create_engine(SERVER.set(database=database))


def session_of(x_shard: Annotated[str, Header()]) -> Iterator[Session]:
    """A session on the practice's database."""
    with Session(engine_of(x_shard)) as session:
        yield session


ShardSession = Annotated[Session, Depends(session_of)]


@app.get("/api/v1/patients")
def list_patients(session: ShardSession, limit: int = 100) -> Envelope[Page]:
    """The active ones."""
    rows = session.scalars(select(Patient).where(Patient.is_deleted == 0).order_by(Patient.id).limit(limit))
    return Envelope(result=Page(data=[PatientOut.model_validate(row) for row in rows]))


@app.get("/api/v1/patients/{patient_id}")
def read_patient(session: ShardSession, patient_id: UUID) -> Envelope[PatientOut]:
    """One."""
    row = session.scalar(select(Patient).where(Patient.id == patient_id, Patient.is_deleted == 0))
    if row is None:
        raise HTTPException(404)
    return Envelope(result=PatientOut.model_validate(row))


@app.post("/api/v1/patients", status_code=201)
def add_patient(session: ShardSession, body: PatientIn) -> Envelope[PatientOut]:
    """A new one."""
    row = Patient(**body.model_dump())
    session.add(row)
    session.commit()
    return Envelope(status=201, result=PatientOut.model_validate(row))
