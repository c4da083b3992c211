"""HTTP routes for agents, and for the phone numbers that a company calls from."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Body, Request, Security
from fastapi.responses import JSONResponse, Response

from api_shim import request_input, responses
from api_shim.auth import DELETE_AGENTS, READ_AGENTS, READ_PHONE_NUMBERS, WRITE_AGENTS, Client, authenticated_client
from api_shim.dispatch import WriteSender, write_sender
from api_shim.openapi import error_answers, links, written_answers
from api_shim.request_input import AgentId, PageQuery
from api_shim.schemas.agent import (
    AGENT_CHANGES,
    AGENTS,
    AgentAnswer,
    AgentChange,
    AgentRequest,
    AgentsAnswer,
    AgentView,
    PhoneNumbersAnswer,
    PhoneNumberView,
)
from api_shim.schemas.envelope import DoneAnswer, Page
from scheduler.domain import refusals
from scheduler.domain.command import CommandKind

_ALL = "/agents"
_ONE = _ALL + "/{agentId}"
router = APIRouter(route_class=request_input.JsonRoute, tags=["agents"])

Reader = Annotated[Client, Security(authenticated_client, scopes=[READ_AGENTS])]
Writer = Annotated[WriteSender, Security(write_sender, scopes=[WRITE_AGENTS])]
Deleter = Annotated[WriteSender, Security(write_sender, scopes=[DELETE_AGENTS])]


@router.get(
    _ALL,
    operation_id="listAgents",
    summary="List agents",
    description="Newest first.",
    responses={200: {"model": AgentsAnswer}, **error_answers(400, 401, 403, 500, 503)},
)
async def list_agents(request: Request, reader: Reader, page: PageQuery) -> JSONResponse:
    listed = await reader.ask(reader.use_cases.agents.page, page)
    return responses.answered(request, Page.of(listed, AgentView.of))


@router.post(
    _ALL,
    operation_id="createAgent",
    summary="Create an agent",
    description="An agent is the template for interviews. Agents of type PHONE need a number to call from.",
    status_code=HTTPStatus.CREATED,
    responses=written_answers(
        HTTPStatus.CREATED,
        AgentAnswer,
        "The created agent.",
        refusals.AgentNumberRequired,
        response_links=links("getAgent", "updateAgent", "deleteAgent", agentId="id"),
    ),
)
async def create_agent(
    sender: Writer, raw: request_input.RawBody, body: Annotated[AgentRequest, Body(openapi_examples=AGENTS)]
) -> Response:
    new = body.to_new_agent()
    return await sender.write(CommandKind.CREATE_AGENT, sender.use_cases.agents.create, raw, sender.company_id, new)


@router.get(
    _ONE,
    operation_id="getAgent",
    summary="Get an agent",
    responses={200: {"model": AgentAnswer}, **error_answers(400, 401, 403, 404, 500, 503)},
)
async def get_agent(request: Request, reader: Reader, agent_id: AgentId) -> JSONResponse:
    agent = await reader.ask(reader.use_cases.agents.get, agent_id)
    return responses.answered(request, AgentView.of(agent))


@router.patch(
    _ONE,
    operation_id="updateAgent",
    summary="Update an agent",
    description="Existing interviews keep the settings that they were created with.",
    responses=written_answers(HTTPStatus.OK, AgentAnswer, "The updated agent.", refusals.AgentNumberRequired),
)
async def update_agent(
    sender: Writer,
    agent_id: AgentId,
    raw: request_input.RawBody,
    body: Annotated[AgentChange, Body(openapi_examples=AGENT_CHANGES)],
) -> Response:
    return await sender.write(
        CommandKind.UPDATE_AGENT, sender.use_cases.agents.change, raw, sender.company_id, agent_id, body.to_changes()
    )


@router.delete(
    _ONE,
    operation_id="deleteAgent",
    summary="Delete an agent",
    description="New interviews can no longer use the agent. Its existing interviews continue.",
    responses=written_answers(HTTPStatus.OK, DoneAnswer, "The agent was deleted."),
)
async def delete_agent(sender: Deleter, agent_id: AgentId, raw: request_input.EmptyBody) -> Response:
    return await sender.write(
        CommandKind.DELETE_AGENT, sender.use_cases.agents.delete, raw, sender.company_id, agent_id
    )


# --- HTTP route for the phone numbers that a company calls from


phone_numbers = APIRouter(tags=["phone numbers"])


@phone_numbers.get(
    "/phone-numbers",
    operation_id="listPhoneNumbers",
    summary="List the phone numbers of a company",
    description="Numbers that its agents can call from, newest first.",
    responses={200: {"model": PhoneNumbersAnswer}, **error_answers(400, 401, 403, 500, 503)},
)
async def list_phone_numbers(
    request: Request,
    reader: Annotated[Client, Security(authenticated_client, scopes=[READ_PHONE_NUMBERS])],
    page: PageQuery,
) -> JSONResponse:
    listed = await reader.ask(reader.use_cases.agents.numbers, page)
    return responses.answered(request, Page.of(listed, PhoneNumberView.view_of))
