using System.Net;
using System.Net.Http.Headers;
using NativeLora.Checkpoints;

namespace NativeLora.Hub;

/// <summary>A failure that another try may mend.</summary>
internal sealed class TransientException(string message, Exception? inner = null) : Exception(message, inner)
{
    /// <summary>How long the server wants to be left alone.</summary>
    public TimeSpan? RetryAfter { get; init; }

    /// <summary>Whether no connection came about at all.</summary>
    public bool IsUnreachable { get; init; }
}

/// <summary>An answer, and what the hub said of the file on the way to it.</summary>
internal sealed class HubResponse(HttpResponseMessage message) : IDisposable
{
    public HttpResponseMessage Message => message;

    public HttpStatusCode Status => message.StatusCode;

    /// <summary>Whether it is the hub's own, not that of another host it led to.</summary>
    public bool IsHome { get; init; }

    public string? Commit { get; init; }

    /// <summary>The file's tag: the hub's own where it redirects, else the answer's.</summary>
    public string? ETag { get; init; }

    public long? Size { get; init; }

    public void Dispose() => message.Dispose();
}

/// <summary>
/// Requests to the hub. Redirects are followed by hand: the token never leaves the endpoint's host, not even by way of another and back, and
/// nothing goes from https to http.
/// </summary>
internal sealed class HubHttp : IDisposable
{
    private const int MostRedirects = 10;
    private readonly HubOptions _options;
    private readonly HttpClient _client;

    public HubHttp(HubOptions options)
    {
        _options = options;
        var handler = new SocketsHttpHandler
        {
            AllowAutoRedirect = false,
            AutomaticDecompression = DecompressionMethods.None,
            UseCookies = false,
            ConnectTimeout = TimeSpan.FromSeconds(20),
        };
        _client = new HttpClient(options.Handler ?? handler) { Timeout = Timeout.InfiniteTimeSpan };
        _client.DefaultRequestHeaders.UserAgent.Add(new ProductInfoHeaderValue("nativelora", "0.1"));
        _client.DefaultRequestHeaders.AcceptEncoding.Add(new StringWithQualityHeaderValue("identity"));
    }

    /// <summary>An address under the endpoint; parts between slashes are escaped.</summary>
    public Uri Address(params string[] parts) => new($"{_options.Endpoint.AbsoluteUri.TrimEnd('/')}/{string.Join('/', parts.Select(Uri.EscapeDataString))}");

    /// <summary>Sends, and follows redirects. The answer's body is not read yet.</summary>
    /// <param name="method">GET or HEAD; a HEAD ends at a redirect to another host that says what the file is.</param>
    /// <param name="address">Under the endpoint.</param>
    /// <param name="from">Where the body is to begin.</param>
    /// <param name="etag">Of what is here already.</param>
    /// <param name="cancellation">Stops it.</param>
    /// <exception cref="TransientException">No answer.</exception>
    /// <exception cref="RunException">The redirects are not to be followed.</exception>
    public async Task<HubResponse> SendAsync(HttpMethod method, Uri address, long from, string? etag, CancellationToken cancellation)
    {
        string? commit = null, linkedTag = null, linkedSize = null;
        var isHome = true;
        for (var redirects = 0; ; redirects++)
        {
            using var request = new HttpRequestMessage(method, address);
            isHome &= SameHost(address, _options.Endpoint);
            if (isHome && _options.Token is { } token && (address.Scheme == Uri.UriSchemeHttps || address.IsLoopback))
                request.Headers.TryAddWithoutValidation("Authorization", $"Bearer {token}");
            if (from > 0)
            {
                request.Headers.Range = new RangeHeaderValue(from, null);
                // Elsewhere the same file has another tag, and would come whole.
                if (isHome && etag is not null)
                    request.Headers.TryAddWithoutValidation("If-Range", $"\"{etag}\"");
            }
            var response = await SendOnceAsync(request, cancellation).ConfigureAwait(false);
            commit ??= Header(response, "X-Repo-Commit");
            linkedTag ??= Header(response, "X-Linked-ETag");
            linkedSize ??= Header(response, "X-Linked-Size");
            var target = (int)response.StatusCode is 301 or 302 or 303 or 307 or 308 ? Target(response, address) : null;
            if (target is null || (method == HttpMethod.Head && linkedTag is not null && !SameHost(target, address)))
                return new HubResponse(response)
                {
                    IsHome = isHome,
                    Commit = commit,
                    ETag = HubNames.ETag(linkedTag ?? (isHome || etag is null ? Header(response, "ETag") : null)),
                    Size = long.TryParse(linkedSize, out var size) ? size : target is null ? response.Content.Headers.ContentLength : null,
                };
            response.Dispose();
            if (redirects == MostRedirects)
                throw new RunException($"{_options.Endpoint.Host}: redirects more than {MostRedirects} times");
            CheckRedirect(address, target);
            address = target;
        }
    }

    /// <summary>Refuses redirects that would weaken the connection.</summary>
    /// <exception cref="RunException">From https to http, or to something that is neither.</exception>
    internal static void CheckRedirect(Uri from, Uri to)
    {
        if (to.Scheme != Uri.UriSchemeHttps && (to.Scheme != Uri.UriSchemeHttp || from.Scheme == Uri.UriSchemeHttps))
            throw new RunException(Reject.OneLine($"{from.Host}: redirects to {to.Scheme}://{to.Host}, which is not followed"));
    }

    /// <summary>Turns answers that are no success into errors.</summary>
    /// <exception cref="InputException">It is not there, or not for everybody.</exception>
    /// <exception cref="TransientException">The server cannot answer now.</exception>
    /// <exception cref="RunException">Anything else.</exception>
    public void Check(HubResponse response, HubReference reference, string? file)
    {
        var status = (int)response.Status;
        if (response.Message.IsSuccessStatusCode || (file is not null && response.ETag is not null && status is >= 300 and < 400))
            return;
        // Addresses at a store are good for a while only; the next try gets a new one.
        if (!response.IsHome)
            throw new TransientException($"{response.Message.RequestMessage?.RequestUri?.Host} answers {status}") { RetryAfter = RetryAfter(response.Message) };
        var (host, code) = (_options.Endpoint.AbsoluteUri.TrimEnd('/'), Header(response.Message, "X-Error-Code"));
        throw status switch
        {
            401 or 403 when code == "GatedRepo" => new InputException($"{reference}: {host} has it for those only who accept its licence: do so at {host}/{reference.Id} and {TokenAdvice()}"),
            401 or 403 => new InputException($"{reference}: no such local folder, and {host} refuses it ({status}): there is none of that name, or it is private or gated; check the name, or accept the licence at {host}/{reference.Id} and {TokenAdvice()}"),
            404 when code == "RevisionNotFound" => new InputException($"{reference}: {host} has no revision {reference.Revision} of it"),
            404 when file is not null => new InputException($"{reference}: {host} has no {file} of it"),
            404 => new InputException($"{reference}: there is no such local folder, and {host} has no such repository or revision ({reference.Revision}); check the name"),
            429 or 408 or >= 500 => new TransientException($"{host} answers {status}{(status == 429 ? " (too many requests)" : "")}") { RetryAfter = RetryAfter(response.Message) },
            _ => new RunException($"{reference}: {host} answers {status}{(file is null ? "" : $" for {file}")}"),
        };
    }

    private string TokenAdvice() =>
        _options.Token is null ? "set HF_TOKEN"
        : _options.Endpoint.Scheme == Uri.UriSchemeHttp && !_options.Endpoint.IsLoopback ? "use https: the token is not sent over http"
        : "see that the token in HF_TOKEN may read it";

    private async Task<HttpResponseMessage> SendOnceAsync(HttpRequestMessage request, CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(_options.Stall);
        try
        {
            return await _client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, limit.Token).ConfigureAwait(false);
        }
        catch (HttpRequestException e) when (e.HttpRequestError == HttpRequestError.SecureConnectionError)
        {
            throw new RunException(Reject.OneLine($"{request.RequestUri!.Host}: no secure connection: {(e.InnerException ?? e).Message}"), e);
        }
        catch (HttpRequestException e)
        {
            throw new TransientException($"{request.RequestUri!.Host} cannot be reached: {Reject.OneLine((e.InnerException ?? e).Message.TrimEnd('.'))}", e)
            {
                IsUnreachable = e.HttpRequestError is HttpRequestError.NameResolutionError or HttpRequestError.ConnectionError or HttpRequestError.ProxyTunnelError,
            };
        }
        catch (OperationCanceledException e) when (!cancellation.IsCancellationRequested)
        {
            throw new TransientException($"{request.RequestUri!.Host} does not answer", e) { IsUnreachable = e.InnerException is TimeoutException };
        }
    }

    private static TimeSpan? RetryAfter(HttpResponseMessage response) => response.Headers.RetryAfter switch
    {
        { Delta: { } wait } => wait,
        { Date: { } date } => date - DateTimeOffset.UtcNow is var wait && wait > TimeSpan.Zero ? wait : TimeSpan.Zero,
        _ => null,
    };

    private static Uri? Target(HttpResponseMessage response, Uri address) =>
        Header(response, "Location") is { } location && Uri.TryCreate(address, location, out var target) ? target : null;

    private static bool SameHost(Uri a, Uri b) =>
        a.Scheme == b.Scheme && a.Port == b.Port && a.Host.Equals(b.Host, StringComparison.OrdinalIgnoreCase);

    // ETags without quotes are malformed and common; they are taken as they are.
    private static string? Header(HttpResponseMessage response, string name) =>
        response.Headers.NonValidated.TryGetValues(name, out var values) ? values.FirstOrDefault() : null;

    public void Dispose() => _client.Dispose();
}
