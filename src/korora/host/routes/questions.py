"""What waits for a person: list, show, answer."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from korora.host import schema
from korora.host.caller import Asker, Callers
from korora.host.services import Migrations


def question_routes(migrations: Migrations, callers: Callers) -> APIRouter:
    router = APIRouter(tags=["questions"], dependencies=[Depends(callers.operator)])
    asker = Depends(callers.operator)

    @router.get("/questions")
    async def list_questions(by: Asker = asker) -> list[schema.QuestionAnswer]:
        """What waits for a person, then what was answered and is not used yet."""
        return [schema.QuestionAnswer.of(question) for question in migrations.questions(by)]

    @router.get("/questions/{question}")
    async def show(question: str, by: Asker = asker) -> schema.QuestionAnswer:
        return schema.QuestionAnswer.of(migrations.question(question, by))

    @router.post("/questions/answers")
    async def answer(body: schema.Answer) -> schema.QuestionAnswer:
        """Answer by a signed statement, which names the matter. It decides the next such request, once."""
        return schema.QuestionAnswer.of(migrations.answer(body.answer.encode()))

    return router
