using System.Text.Json;
using NativeLora.Generation;

namespace NativeLora.Sample.Web;

/// <summary>What the service answers to. Handlers take the context as it is, so that nothing is bound by reflection.</summary>
internal sealed class Endpoints(ServiceOptions options, IClassifierService? classifier, GeneratorService? generator, Readiness readiness, PrometheusMetrics metrics)
{
    private const int MostStops = 4, LongestStop = 64;

    public void Map(IEndpointRouteBuilder app)
    {
        app.MapPost("/v1/classify", ClassifyAsync);
        app.MapPost("/v1/generate", GenerateAsync);
        app.MapGet("/v1/adapters", AdaptersAsync);
        app.MapGet("/health/live", c => Bodies.WriteAsync(c.Response, new Health("live", classifier?.Waiting ?? 0), Wire.Default.Health, c.RequestAborted));
        app.MapGet("/health/ready", ReadyAsync);
        app.MapGet("/metrics", metrics.WriteAsync);
    }

    private async Task ClassifyAsync(HttpContext context)
    {
        if (classifier is null)
            throw new Refused(StatusCodes.Status404NotFound, "this service has no classifier; start it with --Model FOLDER");
        using var limit = Limit(context);
        var request = await Bodies.ReadAsync(context.Request, Wire.Default.ClassifyRequest, limit.Token);
        var texts = Texts(request);
        if (request.Adapter is { } name && !classifier.HasAdapter(name))
            throw Unknown(name);
        var got = await classifier.ClassifyAsync(texts, request.Adapter, limit.Token);
        var results = new ClassifyResult[got.Count];
        for (var i = 0; i < results.Length; i++)
            results[i] = new ClassifyResult(got[i].Best.Label, got[i].Best.Class, got[i].Best.Value, got[i].Probabilities);
        await Bodies.WriteAsync(context.Response, new ClassifyResponse(request.Adapter, got[0].Labels, results), Wire.Default.ClassifyResponse, context.RequestAborted);
    }

    private List<(string, string?)> Texts(ClassifyRequest request)
    {
        if (request.Text is null == request.Texts is null)
            throw new Refused(StatusCodes.Status400BadRequest, "give either \"text\" or \"texts\"");
        if (request.Text is { } text)
            return [(Text(text, "text"), request.Pair is null ? null : Text(request.Pair, "pair"))];
        if (request.Pair is not null)
            throw new Refused(StatusCodes.Status400BadRequest, "\"pair\" goes with \"text\", not with \"texts\"");
        if (request.Texts!.Count == 0 || request.Texts.Count > options.MaxTexts)
            throw new Refused(StatusCodes.Status400BadRequest, $"\"texts\" holds {request.Texts.Count} texts; give 1 to {options.MaxTexts}");
        return [.. request.Texts.Select(t => (Text(t, "texts"), (string?)null))];
    }

    private string Text(string? text, string field) =>
        string.IsNullOrWhiteSpace(text) ? throw new Refused(StatusCodes.Status400BadRequest, $"\"{field}\" holds an empty text; give one with something in it")
        : text.Length > options.MaxTextChars ? throw new Refused(StatusCodes.Status400BadRequest, $"\"{field}\" holds a text of {text.Length} characters; at most {options.MaxTextChars} are taken")
        : text;

    private async Task GenerateAsync(HttpContext context)
    {
        if (generator is null)
            throw new Refused(StatusCodes.Status404NotFound, "this service has no generator; start it with --Generator FOLDER");
        using var limit = Limit(context);
        var request = await Bodies.ReadAsync(context.Request, Wire.Default.GenerateRequest, limit.Token);
        var prompt = generator.Encode(Text(request.Prompt, "prompt"));
        var settings = Settings(request);
        if (request.Adapter is { Length: > 0 } name && !generator.Adapters.Contains(name))
            throw Unknown(name);
        using var place = generator.Enter();
        await using var pieces = generator.StreamAsync(prompt, settings, request.Adapter, limit.Token).GetAsyncEnumerator(limit.Token);
        // The first piece comes before the status, so that a prompt that is refused gets one of its own.
        var more = await pieces.MoveNextAsync();
        if (request.Stream)
        {
            context.Response.ContentType = "text/event-stream; charset=utf-8";
            context.Response.Headers.CacheControl = "no-store";
        }
        GeneratedText? last = null;
        for (; more; more = await pieces.MoveNextAsync())
        {
            last = pieces.Current.Result ?? last;
            if (request.Stream && pieces.Current.Text.Length > 0)
                await SendAsync(context, "piece", JsonSerializer.SerializeToUtf8Bytes(new GeneratePiece(pieces.Current.Text), Wire.Default.GeneratePiece));
        }
        if (last is null)
            throw new RunException("a generation without a result");
        var response = new GenerateResponse(last.Text, prompt.Length, last.Ids.Count, last.Reason.ToString());
        if (request.Stream)
            await SendAsync(context, "done", JsonSerializer.SerializeToUtf8Bytes(response, Wire.Default.GenerateResponse));
        else
            await Bodies.WriteAsync(context.Response, response, Wire.Default.GenerateResponse, context.RequestAborted);
    }

    private GenerationOptions Settings(GenerateRequest request)
    {
        if (request.MaxNewTokens is { } tokens && (tokens < 1 || tokens > options.MaxNewTokens))
            throw new Refused(StatusCodes.Status400BadRequest, $"\"max_new_tokens\" is {tokens}; give 1 to {options.MaxNewTokens}");
        var stops = request.Stop ?? [];
        if (stops.Count > MostStops || stops.Any(s => s is null || s.Length is 0 or > LongestStop))
            throw new Refused(StatusCodes.Status400BadRequest, $"\"stop\" takes {MostStops} texts of 1 to {LongestStop} characters at most");
        var settings = new GenerationOptions
        {
            MaxNewTokens = request.MaxNewTokens ?? Math.Min(128, options.MaxNewTokens),
            Temperature = request.Temperature,
            TopK = request.TopK,
            TopP = request.TopP ?? 1,
            Seed = request.Seed,
            StopStrings = [.. stops.Select(s => s!)],
        };
        settings.Validate();
        return settings;
    }

    private static async Task SendAsync(HttpContext context, string kind, byte[] json)
    {
        await context.Response.WriteAsync($"event: {kind}\ndata: ", context.RequestAborted);
        await context.Response.Body.WriteAsync(json, context.RequestAborted);
        await context.Response.WriteAsync("\n\n", context.RequestAborted);
        await context.Response.Body.FlushAsync(context.RequestAborted);
    }

    private Task AdaptersAsync(HttpContext context)
    {
        var adapters = new List<AdapterInfo>();
        foreach (var name in classifier?.Adapters ?? [])
            adapters.Add(new AdapterInfo(name, "classify", classifier!.HasAdapter(name) ? classifier.AdapterBytes(name) : null));
        foreach (var name in generator?.Adapters ?? [])
            adapters.Add(new AdapterInfo(name, "generate", null));
        return Bodies.WriteAsync(context.Response, new AdapterList(adapters), Wire.Default.AdapterList, context.RequestAborted);
    }

    private Task ReadyAsync(HttpContext context) => Bodies.WriteAsync(context.Response, new Health(readiness.IsReady ? "ready" : "stopping", classifier?.Waiting ?? 0),
        Wire.Default.Health, context.RequestAborted, readiness.IsReady ? StatusCodes.Status200OK : StatusCodes.Status503ServiceUnavailable);

    private static Refused Unknown(string name) => new(StatusCodes.Status404NotFound, $"there is no adapter {Refused.Quote(name)}; GET /v1/adapters names those that there are");

    /// <summary>Ends with the request, or when its time is over.</summary>
    private CancellationTokenSource Limit(HttpContext context)
    {
        var limit = CancellationTokenSource.CreateLinkedTokenSource(context.RequestAborted);
        limit.CancelAfter(TimeSpan.FromSeconds(options.RequestSeconds));
        return limit;
    }
}
