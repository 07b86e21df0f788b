"""Wires the parts and nothing else. Nothing connects before the first request or the first round of a loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from auth_service import handlers
from auth_service.address_limit import AddressLimit
from auth_service.admin_sessions import AdminSessions
from auth_service.api_keys import ApiKeys
from auth_service.audit_reading import AuditReading
from auth_service.background import repeat
from auth_service.closing import EVERY_S as CLOSE_EVERY_S
from auth_service.closing import Closing
from auth_service.config import Settings
from auth_service.counting import Counting
from auth_service.database import Database
from auth_service.dependencies import Rules
from auth_service.email_verification import EmailVerification
from auth_service.invitations import Invitations
from auth_service.listing import Listing
from auth_service.login import LoggingIn
from auth_service.migrations import missing_migrations
from auth_service.password_change import PasswordChange
from auth_service.passwords import PasswordHasher
from auth_service.policy import Policy
from auth_service.receipts import Receipts
from auth_service.reconciler import EVERY_S, FORGET_EVERY_S, Reconciler
from auth_service.redis_clients import connect_counting, connect_redis
from auth_service.relay import POLL_S, Relay
from auth_service.revocations import Revocations
from auth_service.sealing import Sealing
from auth_service.second_factor import RESEAL_EVERY_S, SecondFactors
from auth_service.sessions import Sessions
from auth_service.shards import Shards
from auth_service.signup import SigningUp
from auth_service.staff import Staff
from auth_service.suspension import Suspension
from auth_service.throttle import LoginThrottle
from auth_service.tokens import ADMIN_LIFE_S, AccessTokens, RefreshTokens
from shared.app import create_service_app
from shared.errors import UnavailableError


def create_app(settings: Settings) -> FastAPI:
    """The service, ready to be served."""
    database = Database(settings)
    hasher = PasswordHasher(cost=settings.bcrypt_cost, workers=settings.hash_workers)
    shards = Shards(settings.tenant_service_url, keys=settings.gateway_keys)
    counting = Counting(connect_counting(settings))
    event_waits, shard_waits = asyncio.Event(), asyncio.Event()
    signing_up = SigningUp(
        database,
        limit=AddressLimit("signups", per_address=settings.signups_per_address, shared=counting),
        hasher=hasher,
        shards=shards,
        on_registered=event_waits.set,
        on_undone=shard_waits.set,
    )
    rules = _rules(settings, database, hasher=hasher, counting=counting, signing_up=signing_up, shards=shards)
    redis = connect_redis(settings)
    relay = Relay(database, redis)
    reconciler = Reconciler(database, shards=shards, changes_kept_s=2 * rules.revocations.relevant_s)

    async def reseal() -> None:
        await database.run(rules.second_factors.reseal)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loops = [
            asyncio.create_task(repeat(relay.publish, name="relay", every_s=POLL_S, wake=event_waits)),
            asyncio.create_task(repeat(reconciler.sweep, name="reconciler", every_s=EVERY_S, wake=shard_waits)),
            asyncio.create_task(repeat(reconciler.forget, name="forgetting", every_s=FORGET_EVERY_S)),
            asyncio.create_task(repeat(rules.closing.sweep, name="closing", every_s=CLOSE_EVERY_S)),
            asyncio.create_task(repeat(reseal, name="resealing", every_s=RESEAL_EVERY_S)),
        ]
        yield
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await rules.password_change.close()
        await counting.close()
        await shards.close()
        await asyncio.to_thread(hasher.close)
        await asyncio.to_thread(database.close)
        redis.close()

    async def ready() -> dict[str, str]:
        central, tenant = await asyncio.gather(_missing_in(database), shards.missing())
        missing = {"central database": central, "tenant-service": tenant}
        return {name: why for name, why in missing.items() if why}

    app = create_service_app(title="GoWebbo auth-service", keys=settings.gateway_keys, ready=ready, lifespan=lifespan)
    app.state.rules = rules
    for router in handlers.ROUTERS:
        app.include_router(router)
    return app


def _rules(
    settings: Settings,
    database: Database,
    *,
    hasher: PasswordHasher,
    counting: Counting,
    signing_up: SigningUp,
    shards: Shards,
) -> Rules:
    throttle = LoginThrottle(failures_per_address=settings.login_failures_per_address, shared=counting)
    access_tokens = AccessTokens(settings.jwt_secrets, life_s=settings.token_expire_in)
    sessions = Sessions(
        database,
        access_tokens=access_tokens,
        refresh_tokens=RefreshTokens(settings.jwt_secrets),
        life_s=settings.refresh_expire_in,
        unverified_may_work=settings.unverified_may_work,
    )
    second_factors = SecondFactors(database, sealing=Sealing(settings.jwt_secrets), throttle=throttle)
    logging_in = LoggingIn(
        database,
        hasher=hasher,
        throttle=throttle,
        sessions=sessions,
        second_factors=second_factors,
        unverified_may_work=settings.unverified_may_work,
    )
    password_change = PasswordChange(
        database,
        hasher=hasher,
        throttle=throttle,
        limit=AddressLimit("password-mails", per_address=settings.password_mails_per_address, shared=counting),
    )
    return Rules(
        signing_up=signing_up,
        logging_in=logging_in,
        sessions=sessions,
        password_change=password_change,
        email_verification=EmailVerification(database),
        second_factors=second_factors,
        staff=Staff(database),
        invitations=Invitations(database, hasher=hasher, throttle=throttle),
        api_keys=ApiKeys(database),
        audit_reading=AuditReading(database),
        admin_sessions=AdminSessions(database, access_tokens=access_tokens),
        policy=Policy(database),
        listing=Listing(database),
        suspension=Suspension(database),
        closing=Closing(database, shards=shards, tokens=access_tokens, grace_s=settings.close_grace),
        receipts=Receipts(database),
        revocations=Revocations(database, token_life_s=max(settings.token_expire_in, ADMIN_LIFE_S)),
        access_tokens=access_tokens,
    )


async def _missing_in(database: Database) -> str | None:
    try:
        return await database.run(missing_migrations, database.engine)
    except UnavailableError:
        return "unreachable"
