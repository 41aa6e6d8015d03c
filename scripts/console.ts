/** The last step of `npm run build`. */
import "./bundle.ts";
