using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Microsoft.Net.Http.Headers;

namespace NativeLora.Sample.Web;

/// <summary>Reads and writes JSON bodies; what cannot be read is refused with one line.</summary>
internal static class Bodies
{
    public static async Task<T> ReadAsync<T>(HttpRequest request, JsonTypeInfo<T> type, CancellationToken cancellation)
    {
        if (!request.HasJsonContentType())
            throw new Refused(StatusCodes.Status415UnsupportedMediaType, "the body must be JSON; send the header Content-Type: application/json");
        if (MediaTypeHeaderValue.TryParse(request.ContentType, out var media) && media.Charset is { HasValue: true } charset && !charset.Equals("utf-8", StringComparison.OrdinalIgnoreCase))
            throw new Refused(StatusCodes.Status415UnsupportedMediaType, "the body must be UTF-8; leave the charset out");
        if (request.Headers.ContentEncoding.Count > 0)
            throw new Refused(StatusCodes.Status415UnsupportedMediaType, "the body must not be compressed; leave Content-Encoding out");
        try
        {
            return await JsonSerializer.DeserializeAsync(request.Body, type, cancellation) ?? throw new Refused(StatusCodes.Status400BadRequest, "the body is null; send a JSON object");
        }
        catch (Exception error) when (error is JsonException or InvalidOperationException or DecoderFallbackException)
        {
            // The reader's own message names types of this program.
            var json = error as JsonException;
            var place = json?.LineNumber is { } line ? $" (line {line + 1}, byte {json.BytePositionInLine + 1})" : "";
            throw new Refused(StatusCodes.Status400BadRequest, $"the body is not the JSON that is expected at {Refused.Quote(json?.Path ?? "$")}{place}; see the names and types of the fields in README.md");
        }
    }

    public static Task WriteAsync<T>(HttpResponse response, T value, JsonTypeInfo<T> type, CancellationToken cancellation, int status = StatusCodes.Status200OK, string contentType = "application/json; charset=utf-8")
    {
        response.StatusCode = status;
        response.ContentType = contentType;
        // In one piece, with its length.
        var bytes = JsonSerializer.SerializeToUtf8Bytes(value, type);
        response.ContentLength = bytes.Length;
        return response.Body.WriteAsync(bytes, cancellation).AsTask();
    }
}
