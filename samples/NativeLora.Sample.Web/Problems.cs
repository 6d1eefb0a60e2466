using Microsoft.AspNetCore.WebUtilities;
using NativeLora.Hosting;

namespace NativeLora.Sample.Web;

/// <summary>Turns everything that goes wrong into a status and a line, and keeps it to its own request.</summary>
internal sealed class Problems(RequestDelegate next, ServiceOptions options, ILogger<Problems> logger)
{
    /// <summary>The client closed the connection; nobody gets this status, but metrics show it.</summary>
    private const int ClientClosed = 499;

    public async Task InvokeAsync(HttpContext context)
    {
        var (status, detail) = (0, "");
        try
        {
            await next(context);
            if (context.Response is { StatusCode: >= 400, HasStarted: false, ContentLength: null, ContentType: null })
                (status, detail) = (context.Response.StatusCode, context.Response.StatusCode switch
                {
                    StatusCodes.Status404NotFound => "there is nothing here; see README.md for what there is",
                    StatusCodes.Status405MethodNotAllowed => $"{Refused.Quote(context.Request.Method)} is not what this address takes; see the header Allow",
                    _ => "the request cannot be served",
                });
        }
        catch (Refused error)
        {
            (status, detail) = (error.Status, error.Message);
        }
        catch (QueueFullException error)
        {
            context.Response.Headers.RetryAfter = "1";
            (status, detail) = (StatusCodes.Status503ServiceUnavailable, error.Message);
        }
        catch (InputException error)
        {
            (status, detail) = (StatusCodes.Status400BadRequest, error.Message);
        }
        catch (BadHttpRequestException error)
        {
            (status, detail) = (error.StatusCode, error.StatusCode switch
            {
                StatusCodes.Status413PayloadTooLarge => $"the body is too large; at most {options.MaxBodyBytes} bytes are taken",
                StatusCodes.Status408RequestTimeout => "the body came too slowly; send it at once",
                _ => "the request is malformed",
            });
        }
        catch (Exception) when (context.RequestAborted.IsCancellationRequested)
        {
            if (!context.Response.HasStarted)
                context.Response.StatusCode = ClientClosed;
            return;
        }
        catch (OperationCanceledException)
        {
            (status, detail) = (StatusCodes.Status504GatewayTimeout, $"the request took more than {options.RequestSeconds:0.###} seconds; send less, or try again later");
        }
        catch (ObjectDisposedException)
        {
            context.Response.Headers.RetryAfter = "1";
            (status, detail) = (StatusCodes.Status503ServiceUnavailable, "the service is stopping; try another one");
        }
        catch (Exception error)
        {
            logger.LogError(error, "a request failed");
            (status, detail) = (StatusCodes.Status500InternalServerError, "the request failed for a reason within the service; its log says more");
        }
        if (status == 0)
            return;
        if (context.Response.HasStarted)
        {
            context.Abort();
            return;
        }
        await WriteAsync(context, status, detail);
    }

    private static async Task WriteAsync(HttpContext context, int status, string detail)
    {
        try
        {
            await Bodies.WriteAsync(context.Response, new Problem("about:blank", ReasonPhrases.GetReasonPhrase(status), status, detail), Wire.Default.Problem,
                context.RequestAborted, status, "application/problem+json");
        }
        catch (OperationCanceledException)
        {
            // Nobody waits for it.
        }
    }
}
