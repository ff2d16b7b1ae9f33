// SPDX-License-Identifier: Apache-2.0
//! What is answered to each message of the protocol.

use axum::http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CustomRequest, CustomResult, ErrorCode, GetPromptRequestParams,
    GetPromptResponse, Implementation, ListPromptsResult, ListToolsResult, PaginatedRequestParams,
    PromptsCapability, ServerCapabilities, ServerConfig, Tool, ToolsCapability,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::exchange::Exchange;
use super::{prompts, tools};
use crate::api;
use crate::app::App;

/// What a model is told of the server as a whole.
const INSTRUCTIONS: &str = "\
microsandbox runs code that you do not trust, or do not want to run on the user's machine, in sandboxes: isolated Linux \
machines without a network. A sandbox is known by its name within a namespace; use the namespace 'default' unless you \
were told another. First start one with sandbox_start and config {\"image\": \"microsandbox/python\"} or \
{\"image\": \"microsandbox/node\"}. Then run code in it with sandbox_run_code (variables, imports and files are kept from \
run to run) and programs with sandbox_run_command (no shell is between: use sh with args [\"-c\", ...] for one). Only what \
is printed comes back, so print what you want to see. Give a timeout in seconds to whatever may hang. Stop the sandbox \
with sandbox_stop when you are done: that removes its files. An answer marked as an error says what to do about it.";

/// The methods whose parameters were wrong if they get here as unknown ones.
const KNOWN: [&str; 4] = ["initialize", "tools/call", "prompts/get", "server/discover"];

#[derive(Clone)]
pub(super) struct Handler {
    app: App,
}

impl Handler {
    pub(super) fn new(app: App) -> Handler {
        Handler { app }
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let mut tools = ToolsCapability::default();
        tools.list_changed = Some(false);
        let mut prompts = PromptsCapability::default();
        prompts.list_changed = Some(false);
        let capabilities =
            ServerCapabilities::builder().enable_prompts_with(prompts).enable_tools_with(tools).build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("microsandbox-server", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools::list()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::find(name).map(tools::describe)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let method = tools::find(&request.name).ok_or_else(|| {
            let text =
                format!("Unknown tool: {}; the tools are {}", api::quoted(&request.name), tools::names());
            ErrorData::invalid_params(text, None)
        })?;
        let arguments = request.arguments.unwrap_or_default();
        let parts = context.extensions.get::<Parts>();
        let exchange = parts
            .and_then(|parts| parts.extensions.get::<Exchange>())
            .ok_or_else(|| lost("the HTTP request"))?;
        tokio::select! {
            biased;
            // The client is gone, and nobody reads what is said to it.
            () = context.ct.cancelled() => Err(lost("the client")),
            result = tools::call(&self.app, exchange, method, arguments) => Ok(result.into()),
        }
    }

    async fn list_prompts(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(prompts::list()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        prompts::get(&request.name, &request.arguments.unwrap_or_default()).map(GetPromptResponse::from)
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _context: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        if KNOWN.contains(&request.method.as_str()) {
            let text =
                format!("Invalid params: a parameter of {} is missing or of a wrong type", request.method);
            return Err(ErrorData::invalid_params(text, None));
        }
        let text = format!("Method not found: {}", api::quoted(&request.method));
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, text, None))
    }
}

fn lost(what: &str) -> ErrorData {
    ErrorData::internal_error(format!("{what} is gone"), None)
}
