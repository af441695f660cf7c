"""The host itself: what it is, its evidence, and how it is enrolled."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter

from korora.host import schema
from korora.host.routes.encoding import base64_of
from korora.host.services import Services
from korora.ports.tpm import Credential


def host_routes(services: Services) -> APIRouter:
    router = APIRouter(tags=["host"])
    attestation, enrolment = services.attestation, services.enrolment
    name = services.configuration.name

    @router.get("/host")
    async def show_host() -> schema.HostAnswer:
        """What this host is, and whether it is ready."""
        trouble = await attestation.tpm_trouble()
        return schema.HostAnswer(
            name=name,
            version=version("korora"),
            listen=str(services.configuration.listen),
            enrolled=enrolment.enrolled(),
            tpm_ok=trouble is None,
            tpm_trouble=trouble,
            hypervisor=schema.as_object(await services.guests.facts()),
            vms=services.guests.counts(),
            incoming_limit=services.configuration.incoming_limit,
            log_size=services.log.size(),
            problems=tuple(
                schema.ProblemAnswer(problem.message, problem.remedy) for problem in services.files.problems()
            ),
        )

    @router.post("/attestation")
    async def attest(body: schema.Attest) -> schema.AttestationAnswer:
        """Evidence over the caller's nonce. Appraising it is the caller's."""
        shown = await attestation.present(bytes.fromhex(body.nonce))
        return schema.AttestationAnswer(
            host=name,
            certificate=base64_of(shown.certificate) if shown.certificate is not None else None,
            enrolment=base64_of(shown.enrolment) if shown.enrolment is not None else None,
            ek_certificate=base64_of(shown.ek_certificate),
            ek_public=base64_of(shown.ek_public),
            ak_public=base64_of(shown.ak_public),
            attest=base64_of(shown.evidence.quote.attest),
            signature=base64_of(shown.evidence.quote.signature),
            pcrs=shown.evidence.pcrs,
            event_log=base64_of(shown.evidence.event_log),
        )

    @router.post("/enrolment/begin")
    async def begin_enrolment() -> schema.ApplicantAnswer:
        """What the site authority needs in order to challenge this host's TPM."""
        shown = await enrolment.begin()
        return schema.ApplicantAnswer(
            ek_certificate=base64_of(shown.ek_certificate),
            ek_public=base64_of(shown.ek_public),
            ak_public=base64_of(shown.ak_public),
            csr=base64_of(shown.csr),
        )

    @router.post("/enrolment/activate")
    async def activate(body: schema.Activate) -> schema.ActivateAnswer:
        """Answer the challenge."""
        secret = await enrolment.activate(Credential(body.blob, body.encrypted_secret))
        return schema.ActivateAnswer(base64_of(secret.reveal()))

    @router.post("/enrolment/finish")
    async def finish_enrolment(body: schema.FinishEnrolment) -> dict[str, bool]:
        """Install the certificate and the signed enrolment; the listener starts to use them."""
        await enrolment.finish(body.certificate.encode(), body.enrolment.encode())
        return {"enrolled": enrolment.enrolled()}

    return router
